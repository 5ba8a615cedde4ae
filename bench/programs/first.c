/*
 * The first process of a guest whose start is measured: says so, powers off.
 * It mounts nothing: the kernel has opened /dev/console for it.
 */
#include <sys/reboot.h>
#include <unistd.h>

int
main(void)
{
	static const char line[] = "BIGA-FIRST\n";

	if (write(1, line, sizeof(line) - 1) < 0)
		return 1;
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}
