"""A generated C program of many files, for a guest's compiler to chew on.

Its numbers are those of a small expression language evaluated here in Python, so
that the guest's compiler, its make and the program it makes are checked without
another machine's compiler.
"""
import random

MASK = (1 << 64) - 1
OPERATORS = ["+", "-", "*", "&", "|", "^"]


def evaluate(operator, a, b):
    return {"+": a + b, "-": a - b, "*": a * b, "&": a & b, "|": a | b, "^": a ^ b}[operator] & MASK


class Function:
    """u64 f(u64 a, u64 b): statements on two variables, and a loop around them."""

    def __init__(self, name, chance, length):
        self.name = name
        self.loops = chance.randrange(1, 9)
        self.steps = [(chance.choice("ab"), chance.choice(OPERATORS), chance.choice("ab"),
                       chance.getrandbits(chance.choice((8, 31, 64))), chance.randrange(1, 63))
                      for _ in range(length)]

    def source(self):
        lines = [f"unsigned long {self.name}(unsigned long a, unsigned long b)", "{",
                 f"\tfor (int i = 0; i < {self.loops}; i++) {{"]
        for target, operator, other, number, turn in self.steps:
            lines.append(f"\t\t{target} = ({target} << {turn} | {target} >> {64 - turn}) {operator} "
                         f"({other} + {number}ul);")
        return "\n".join(lines + ["\t}", "\treturn a ^ b;", "}", ""])

    def run(self, a, b):
        for _ in range(self.loops):
            for target, operator, other, number, turn in self.steps:
                value = a if target == "a" else b
                value = (value << turn | value >> (64 - turn)) & MASK
                value = evaluate(operator, value, ((a if other == "a" else b) + number) & MASK)
                a, b = (value, b) if target == "a" else (a, value)
        return a ^ b


def make(files=16, functions=12, length=14, seed=1):
    """({file name: text}, what the program prints)."""
    chance = random.Random(seed)
    tree, names, value = {}, [], 1
    for number in range(files):
        parts = [Function(f"f{number}_{i}", chance, length) for i in range(functions)]
        tree[f"part{number}.c"] = "#include \"all.h\"\n" + "\n".join(p.source() for p in parts)
        for part in parts:
            names.append(part.name)
            value = part.run(value, len(names))
    tree["all.h"] = "".join(f"unsigned long {n}(unsigned long a, unsigned long b);\n" for n in names)
    calls = "".join(f"\tv = {n}(v, {i + 1}ul);\n" for i, n in enumerate(names))
    tree["main.c"] = ("#include <stdio.h>\n#include \"all.h\"\n\nint main(void)\n{\n"
                      f"\tunsigned long v = 1;\n\n{calls}\tprintf(\"%lu\\n\", v);\n\treturn 0;\n}}\n")
    objects = " ".join(f"part{i}.o" for i in range(files)) + " main.o"
    tree["Makefile"] = (f"CFLAGS = -O2 -Wall -Werror\nprogram: {objects}\n"
                        f"\t$(CC) -o $@ {objects}\n{objects}: all.h\n")
    return tree, str(value)
