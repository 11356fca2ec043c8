/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lets user-mode-linux 6.12 run on processors with AMX.
 *
 * It saves and restores its processes' vector registers by ptrace in a buffer
 * of fixed size.  On such processors the host wants the whole, larger area and
 * refuses the write (EFAULT), which ends in "ptrace set fp regs failed".  This
 * library, preloaded, takes ptrace's place and hands the host the area it wants:
 * what the guest knows, and zeros for the AMX tiles, which the guest cannot use.
 */

#define PTRACE_PEEKTEXT 1
#define PTRACE_PEEKUSR 3
#define PTRACE_GETREGSET 0x4204
#define PTRACE_SETREGSET 0x4205
#define NT_X86_XSTATE 0x202
#define SYS_PTRACE 101
#define XSTATE_BV 512 /* offset of the bit map of components in use */
#define AMX_COMPONENTS (3UL << 17)

struct iovec {
	unsigned char *base;
	unsigned long length;
};

long syscall(long number, ...);

static unsigned char area[65536] __attribute__((aligned(64)));
static unsigned long area_size;

static long get(long pid, struct iovec *guest)
{
	struct iovec host = {area, sizeof(area)};
	unsigned long i;
	long result = syscall(SYS_PTRACE, PTRACE_GETREGSET, pid, NT_X86_XSTATE, &host);

	if (result < 0)
		return result;
	area_size = host.length;
	if (guest->length > area_size)
		guest->length = area_size;
	for (i = 0; i < guest->length; i++)
		guest->base[i] = area[i];
	return 0;
}

static long set(long pid, struct iovec *guest)
{
	struct iovec host = {area, 0};
	unsigned long i;

	if (!area_size) {
		struct iovec nothing = {area, 0};
		long result = get(pid, &nothing);

		if (result < 0)
			return result;
	}
	for (i = 0; i < area_size; i++)
		area[i] = i < guest->length ? guest->base[i] : 0;
	if (guest->length < area_size)
		*(unsigned long *)(area + XSTATE_BV) &= ~AMX_COMPONENTS;
	host.length = area_size;
	return syscall(SYS_PTRACE, PTRACE_SETREGSET, pid, NT_X86_XSTATE, &host);
}

long ptrace(long request, long pid, long address, void *data)
{
	if (address == NT_X86_XSTATE && request == PTRACE_GETREGSET)
		return get(pid, data);
	if (address == NT_X86_XSTATE && request == PTRACE_SETREGSET)
		return set(pid, data);
	if (request >= PTRACE_PEEKTEXT && request <= PTRACE_PEEKUSR) {
		/* The system call stores the word, the function returns it. */
		long word;
		long result = syscall(SYS_PTRACE, request, pid, address, &word);

		return result < 0 ? result : word;
	}
	return syscall(SYS_PTRACE, request, pid, address, data);
}
