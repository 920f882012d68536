/*
 * command.c
 *		A look at the text of a command, without parsing it.  Pure.
 *
 * The scanner knows what may hide a semicolon: literals, quoted names, dollar
 * quotes and comments.  Each skip function gets a pointer to the beginning of
 * one and returns where it ends, or NULL if it can't tell.
 */
#ifdef PGMC_UNIT
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include "command.h"

#define SPACES	" \t\n\r\f\v"

/*
 * A literal or a quoted name.  A doubled quote looks like the end of one and
 * the beginning of the next, which comes to the same.  After a backslash only
 * the server knows whether a quote ends the literal.
 */
static const char *
skip_quoted(const char *p)
{
	char		quote = *p++;

	for (; *p != '\0'; p++)
	{
		if (*p == quote)
			return p + 1;
		if (*p == '\\' && quote == '\'')
			return NULL;
	}
	return NULL;
}

static const char *
skip_line_comment(const char *p)
{
	return p + strcspn(p, "\r\n");
}

/* these nest */
static const char *
skip_block_comment(const char *p)
{
	int			depth = 0;

	while (*p != '\0')
	{
		if (p[0] == '/' && p[1] == '*')
		{
			depth++;
			p += 2;
		}
		else if (p[0] == '*' && p[1] == '/')
		{
			p += 2;
			if (--depth == 0)
				return p;
		}
		else
			p++;
	}
	return NULL;
}

static bool
in_identifier(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
		(c >= '0' && c <= '9') || ((unsigned char) c & 0x80) != 0;
}

/* a dollar quote, or just the dollar of a parameter or of a name */
static const char *
skip_dollar(const char *start, const char *p)
{
	const char *tag_end = p + 1;
	const char *end;
	size_t		tag;

	if (p > start && (in_identifier(p[-1]) || p[-1] == '$'))
		return p + 1;
	if (*tag_end >= '0' && *tag_end <= '9')
		return p + 1;
	while (in_identifier(*tag_end))
		tag_end++;
	if (*tag_end != '$')
		return p + 1;
	tag = tag_end + 1 - p;
	for (end = tag_end + 1; *end != '\0'; end++)
		if (strncmp(end, p, tag) == 0)
			return end + tag;
	return NULL;
}

/* Go past one thing that is no semicolon; NULL: can't tell what it is. */
static const char *
skip_one(const char *start, const char *p)
{
	if (*p == '\'' || *p == '"')
		return skip_quoted(p);
	if (*p == '$')
		return skip_dollar(start, p);
	if (p[0] == '-' && p[1] == '-')
		return skip_line_comment(p);
	if (p[0] == '/' && p[1] == '*')
		return skip_block_comment(p);
	return p + 1;
}

bool
pgmc_command_may_be_several(const char *command)
{
	const char *p = command;

	if (strchr(command, ';') == NULL)
		return false;
	while (*p != '\0' && *p != ';')
	{
		p = skip_one(command, p);
		if (p == NULL)
			return true;
	}

	/* behind the semicolon there may be white space and semicolons only */
	return p[strspn(p, SPACES ";")] != '\0';
}

/*
 * Go to the first character that is neither white space, nor a comment, nor
 * one of these; NULL: a comment has no end, so the server takes none of it.
 */
static const char *
skip_blanks(const char *p, const char *blanks)
{
	while (p != NULL)
	{
		const char *begin = p;

		p += strspn(p, blanks);
		if (p[0] == '-' && p[1] == '-')
			p = skip_line_comment(p);
		else if (p[0] == '/' && p[1] == '*')
			p = skip_block_comment(p);
		if (p == begin)
			break;
	}
	return p;
}

/* Is this word (in lower case) here, behind blanks?  Where it ends, or NULL. */
static const char *
take_word(const char *p, const char *word)
{
	size_t		length = strlen(word);

	p = p == NULL ? NULL : skip_blanks(p, SPACES);
	return p != NULL && pg_strncasecmp(p, word, length) == 0 &&
		!in_identifier(p[length]) && p[length] != '$' ? p + length : NULL;
}

bool
pgmc_command_is(const char *command, const char *word)
{
	return take_word(skip_blanks(command, SPACES ";"), word) != NULL;
}

bool
pgmc_command_may_be_copy(const char *command)
{
	command = skip_blanks(command, SPACES "(;");
	return command == NULL || take_word(command, "copy") != NULL;
}

/* Does the test say so of the command, or of what follows one of its semicolons? */
static bool
any_command(const char *command, bool (*test) (const char *command))
{
	while (command != NULL)
	{
		command = skip_blanks(command, SPACES ";");
		if (command == NULL || test(command))
			return command != NULL;
		command = strchr(command, ';');
	}
	return false;
}

static bool
begins_with_one(const char *command, const char *const *words)
{
	for (int i = 0; words[i] != NULL; i++)
		if (take_word(command, words[i]) != NULL)
			return true;
	return false;
}

static bool
commits(const char *command)
{
	static const char *const words[] = {"commit", "end", "prepare", NULL};

	return begins_with_one(command, words);
}

bool
pgmc_command_may_commit(const char *command)
{
	return any_command(command, commits);
}

static bool
prepares(const char *command)
{
	return take_word(command, "prepare") != NULL;
}

bool
pgmc_command_may_prepare(const char *command)
{
	return any_command(command, prepares);
}

/* CREATE [UNIQUE] INDEX CONCURRENTLY, DROP INDEX CONCURRENTLY */
static bool
is_concurrent_index(const char *command)
{
	const char *verb = take_word(command, "create");
	const char *unique = take_word(verb, "unique");

	if (verb == NULL)
		verb = take_word(command, "drop");
	return take_word(take_word(unique ? unique : verb, "index"),
					 "concurrently") != NULL;
}

/* ALTER TABLE ... DETACH PARTITION ... CONCURRENTLY */
static bool
is_concurrent_alter(const char *command)
{
	const char *p = take_word(take_word(command, "alter"), "table");

	while (p != NULL && *p != '\0' && *p != ';')
	{
		if (!in_identifier(p[-1]) && take_word(p, "concurrently") != NULL)
			return true;
		p = skip_one(command, p);
	}
	return false;
}

static bool
commits_within(const char *command)
{
	static const char *const words[] = {
		"call", "do", "vacuum", "analyze", "analyse", "reindex", "cluster", NULL
	};

	return begins_with_one(command, words) || is_concurrent_index(command) ||
		is_concurrent_alter(command);
}

bool
pgmc_command_may_commit_within(const char *command)
{
	return any_command(command, commits_within);
}

static bool
is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Is there a word in this text that stands for a moment, such as 'today'? */
static bool
names_moment(const char *text, const char *end)
{
	static const char *const words[] = {"now", "today", "tomorrow", "yesterday"};

	for (const char *p = text; p < end; p++)
	{
		if (p > text &&is_letter(p[-1]))
			continue;
		for (size_t i = 0; i < lengthof(words); i++)
		{
			size_t		length = strlen(words[i]);

			if (pg_strncasecmp(p, words[i], length) == 0 && !is_letter(p[length]))
				return true;
		}
	}
	return false;
}

/*
 * The server reads literals when it prepares a command: a date 'today' stays
 * that of this day.  Commands that are no queries gain nothing by it, and
 * those that end a transaction shall not fail because they are gone.
 */
bool
pgmc_command_is_repeatable(const char *command)
{
	static const char *const words[] = {
		"select", "insert", "update", "delete", "merge", "with", "values"
	};
	bool		is_query = false;
	const char *p = command;

	for (size_t i = 0; i < lengthof(words); i++)
		is_query = is_query || pgmc_command_is(command, words[i]);
	while (is_query && *p != '\0')
	{
		const char *end = skip_one(command, p);

		if (end == NULL || ((*p == '\'' || *p == '$') && names_moment(p, end)))
			return false;
		p = end;
	}
	return is_query;
}
