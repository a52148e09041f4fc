/** One word for a POSIX shell, whatever is in it. As in workspace/shell-quote.ts, which the command may not import. */
export const singleQuoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
