/*
 * Lets User-Mode Linux run on processors whose registers are larger than it knows (AMX: 8 KiB of tiles).
 *
 * Linux takes a process's extended registers (NT_X86_XSTATE) as a whole only, and answers EFAULT to a shorter set.
 * User-Mode Linux 6.1 has room for AVX-512 and no more. Preloaded into it, this adds what it does not know of: as
 * never used, since no process can ask User-Mode Linux for the permission to use it.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

/* Intel's manual, volume 1, section 13.4.2: which components are in use; all up to protection keys are known. */
#define IN_USE 512
#define KNOWN 0x3ff

typedef long (*call)(int, pid_t, void *, void *);

long ptrace(enum __ptrace_request request, ...)
{
    static call next;
    static char registers[1 << 16];
    static size_t size; /* of all registers of this processor */
    va_list arguments;
    va_start(arguments, request);
    pid_t pid = va_arg(arguments, pid_t);
    void *address = va_arg(arguments, void *);
    void *data = va_arg(arguments, void *);
    va_end(arguments);
    if (!next)
        next = (call)dlsym(RTLD_NEXT, "ptrace");
    if (request == PTRACE_SETREGSET && address == (void *)NT_X86_XSTATE) {
        struct iovec *given = data, whole = {registers, sizeof registers};
        if (!size && next(PTRACE_GETREGSET, pid, address, &whole) == 0) {
            size = whole.iov_len;
            memset(registers, 0, sizeof registers);
        }
        if (size > given->iov_len && given->iov_len > IN_USE + sizeof(uint64_t)) {
            memcpy(registers, given->iov_base, given->iov_len);
            *(uint64_t *)(registers + IN_USE) &= KNOWN;
            whole.iov_len = size;
            return next(request, pid, address, &whole);
        }
    }
    return next(request, pid, address, data);
}
