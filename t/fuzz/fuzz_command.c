/*
 * fuzz_command.c
 *		Any text: looking at a command reads nothing outside of it, and what the
 *		look takes for one command has no semicolon at all but those in literals,
 *		names and comments, or at its end.
 *
 * For tools/fuzz.
 */
#include "postgres_fe.h"

#include "command.h"

extern int	LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	char	   *text = malloc(size + 1);
	char	   *twice = malloc(size * 2 + 2);

	memcpy(text, data, size);
	text[		size] = '\0';

	(void) pgmc_command_may_be_copy(text);
	if (!pgmc_command_may_be_several(text) &&
		strpbrk(text, ";'\"$/-\\") == NULL)
	{
		/* plain text without any of these, twice, is two commands */
		sprintf(twice, "%s;%s", text, text);
		if (strspn(text, " \t\n\r\f\v") != strlen(text) &&
			!pgmc_command_may_be_several(twice))
			abort();
	}
	free(text);
	free(twice);
	return 0;
}
