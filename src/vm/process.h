/*
 * The process that is a VM. It gives up its privileges before it reads its
 * first message, gets everything over the control socket, and ends with the VM.
 */
#ifndef VM_PROCESS_H
#define VM_PROCESS_H

#include "base/types.h"

/* Serves the VM whose control socket is CONTROL (taken over). The process's exit status:
 * 0 the VM ran and its end was reported, 2 it never started (the reply said why). */
int vm_process_main(int control);

#endif
