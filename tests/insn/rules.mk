# Instruction tests: insn_test and fuzz_blocks run cases bare and through the
# translator; helper_test runs the translator's C helpers on fake memory.
INSN_COMMON := $(addprefix $(B)/tests/insn/,random.o forms.o generate.o bare.o compare.o)
INSN_HELPERS := $(addprefix $(B)/src/engine/translator/,decode.o rare.o vector_mem.o string.o \
	xstate.o port.o leaf/leaf_string.o)
INSN_BIN := $(addprefix $(B)/tests/insn/,insn_test fuzz_blocks helper_test)

insn: $(INSN_BIN)
test-programs: insn
.PHONY: insn

$(B)/tests/insn/insn_test: $(INSN_COMMON) $(B)/tests/insn/insn_test.o $(B)/tests/insn/guest.o $(LIB)
	$(CC) $(LINK_FLAGS) -o $@ $^ $(LDLIBS)

$(B)/tests/insn/fuzz_blocks: $(INSN_COMMON) $(B)/tests/insn/fuzz_blocks.o $(B)/tests/insn/guest.o $(LIB)
	$(CC) $(LINK_FLAGS) -o $@ $^ $(LDLIBS)

# Not with the library's mmu.o: the fake one stands in.
$(B)/tests/insn/helper_test: $(INSN_COMMON) $(B)/tests/insn/insn_test.o $(B)/tests/insn/direct.o \
		$(INSN_HELPERS) $(addprefix $(B)/src/cpu/,cpuid.o cpuid_model.o tsc.o)
	$(CC) $(LINK_FLAGS) -o $@ $^ $(LDLIBS)
