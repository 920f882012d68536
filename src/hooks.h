/*
 * hooks.h
 *		What pgmc notices of other commands in a session that has loaded it.
 */
#ifndef PGMC_HOOKS_H
#define PGMC_HOOKS_H

/* Install the hooks; once a process. */
extern void pgmc_hooks_init(void);

#endif							/* PGMC_HOOKS_H */
