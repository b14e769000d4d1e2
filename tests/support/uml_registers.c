/*
 * Lets User-Mode Linux run on processors whose registers are larger than it knows (AMX: 8 KiB of tiles).
 *
 * Linux takes a process's extended registers (NT_X86_XSTATE) as a whole only, and answers EFAULT to a shorter set.
 * User-Mode Linux 6.1 has room for AVX-512 and no more. Preloaded into it, this puts what it knows of in front of
 * what the process has already.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

typedef long (*call)(int, pid_t, void *, void *);

long ptrace(enum __ptrace_request request, ...)
{
    static call next;
    static char registers[1 << 16];
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
        if (next(PTRACE_GETREGSET, pid, address, &whole) == 0 && whole.iov_len > given->iov_len) {
            memcpy(registers, given->iov_base, given->iov_len);
            return next(request, pid, address, &whole);
        }
    }
    return next(request, pid, address, data);
}
