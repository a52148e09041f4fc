import path from 'node:path';

/**
 * A pattern of paths: `*` and `?` stand for what is in one name, `**` for any number of directories, `[a-c]` and `{a,b}` for a
 * choice. Unlike in a shell, and in `path.matchesGlob`, a name that begins with a dot is a name as any other, and case makes no
 * difference: on many a disk it makes none either. What else Node knows (`@(a|b)`) it is asked for.
 */
export function matchesGlob(file: string, pattern: string): boolean {
  return new RegExp(`^${sourceOf(pattern)}$`, 'isu').test(file) || path.matchesGlob(file, pattern);
}

const TOKEN =
  /(?<deep>(?<=^|\/)\*\*\/)|(?<rest>(?<=^|\/)\*\*$)|(?<star>\*+)|(?<one>\?)|\[(?<not>[!^]?)(?<choice>\]?[^\]]+)\]|\{(?<words>[^{}]*,[^{}]*)\}|\\?(?<plain>.)/gsu;

function sourceOf(pattern: string): string {
  return pattern.replace(TOKEN, (...found) => {
    const token = found.at(-1) as Readonly<Record<string, string | undefined>>;
    if (token['deep'] !== undefined) return '(?:[^/]+/)*';
    if (token['rest'] !== undefined) return '.+';
    if (token['star'] !== undefined) return '[^/]*';
    if (token['one'] !== undefined) return '[^/]';
    if (token['choice'] !== undefined) return choiceOf(token['choice'], token['not'] !== '');
    if (token['words'] !== undefined)
      return `(?:${token['words'].split(',').map(sourceOf).join('|')})`;
    return (token['plain'] ?? '').replace(/[\\^$.*+?()[\]{}|/]/, '\\$&');
  });
}

function choiceOf(characters: string, not: boolean): string {
  const source = `[${not ? '^/' : ''}${characters.replace(/[\\\][^|]/g, '\\$&')}]`;
  try {
    return new RegExp(source, 'u').source;
  } catch {
    return '(?!)'; // the wrong way round, such as [z-a]: nothing
  }
}
