/*
 * command.h
 *		A look at the text of a command, without parsing it.  Pure.
 */
#ifndef PGMC_COMMAND_H
#define PGMC_COMMAND_H

/*
 * May this string hold more than one command?  False is certain; true may be
 * wrong, for the look is one of a scanner, and a short-sighted one where the
 * meaning of a backslash depends on a setting.
 */
extern bool pgmc_command_may_be_several(const char *command);

/* May this be a COPY?  False is certain, where the string is one command. */
extern bool pgmc_command_may_be_copy(const char *command);

/* May this, or a command in it, be one that commits?  Not one that hides it. */
extern bool pgmc_command_may_commit(const char *command);

/* Is one of those a PREPARE, of a transaction or a statement? */
extern bool pgmc_command_may_prepare(const char *command);

/* May this, or a command in it, commit before its own end?  The same applies. */
extern bool pgmc_command_may_commit_within(const char *command);

/*
 * Is this its first word, in lower case, behind white space, semicolons and
 * comments?  Certain, where the string is one command.
 */
extern bool pgmc_command_is(const char *command, const char *word);

/*
 * Can this command, which is one, be prepared and used again and again, and
 * does it still mean the same then?  False may be wrong.
 */
extern bool pgmc_command_is_repeatable(const char *command);

#endif							/* PGMC_COMMAND_H */
