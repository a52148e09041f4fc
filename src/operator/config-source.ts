import { type FileHandle, open, stat } from 'node:fs/promises';
import {
  Alias,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  type Pair,
  parseDocument,
  type YAMLMap,
  type YAMLParseError,
} from 'yaml';
import { type ConfigProblem, formatPath, shorten } from './config-problems.ts';
import { describeFileError } from './project-files.ts';

/** 10 000 tasks fit; a database dump or a log given by mistake does not. */
const MAX_FILE_BYTES = 1024 * 1024;
const MAX_DEPTH = 100;
/** Values that aliases may add to those that stand in the file: stops a file of 1 kB from becoming gigabytes. */
const MAX_ALIASED_VALUES = 100_000;

/** A YAML file as plain data that also knows on which line each value stands. */
export interface ConfigSource {
  /** The file, as it is shown to the user. */
  readonly file: string;
  /** JSON data only. What could not be that is null, or left out, and among the problems. */
  readonly value: unknown;
  /** What the reader refused: duplicate keys, tags, merge keys, numbers that JSON cannot hold. */
  readonly problems: readonly ConfigProblem[];
  /** The problem of the value at `keys`, or of the last part of the path that exists. */
  problem(keys: readonly PropertyKey[], message: ConfigProblem['message']): ConfigProblem;
  /** As `problem`, but points at the key and not at what it holds. */
  keyProblem(keys: readonly PropertyKey[], message: ConfigProblem['message']): ConfigProblem;
}

/** The file's data, or why there is none. */
export type SourceResult =
  | { readonly source: ConfigSource }
  | { readonly problems: readonly ConfigProblem[] };

/**
 * Reads a YAML file strictly: core schema of YAML 1.2, one document, no tags, no merge keys, no key given twice,
 * aliases only up to a limit, at most 1 MiB and 100 levels.
 * @param file where it is; must be a regular file
 * @param shownAs what problems call it
 * @param root the path its root has in messages: `tasks` for a file that holds the tasks
 */
export async function readConfigSource(
  file: string,
  shownAs: string,
  root: readonly PropertyKey[] = [],
): Promise<SourceResult> {
  const text = await readText(file, shownAs);
  return typeof text === 'string' ? parseConfigSource(text, shownAs, root) : { problems: [text] };
}

function parseConfigSource(
  text: string,
  shownAs: string,
  root: readonly PropertyKey[],
): SourceResult {
  const lineCounter = new LineCounter();
  const at = (offset: number, keys: readonly PropertyKey[], message: ConfigProblem['message']) => {
    const { line, col } = lineCounter.linePos(offset);
    return {
      file: shownAs,
      line: Math.max(1, line),
      column: Math.max(1, col),
      path: formatPath([...root, ...keys]),
      message,
    };
  };

  const document = parseDocument(text, {
    version: '1.2',
    schema: 'core',
    merge: false,
    resolveKnownTags: false,
    stringKeys: true,
    // The library's check compares every key with every other; PlainReader's does not.
    uniqueKeys: false,
    prettyErrors: false,
    lineCounter,
  });
  if (document.errors.length > 0) {
    return {
      problems: document.errors.map((error) =>
        at(error.pos[0], [], () => `is not valid YAML: ${describeSyntaxError(error)}`),
      ),
    };
  }
  const { yaml } = document.directives ?? {};
  if (yaml?.explicit === true && yaml.version !== '1.2') {
    return {
      problems: [
        at(0, [], `expected YAML 1.2, got the directive %YAML ${yaml.version}; remove it`),
      ],
    };
  }
  if (document.contents === null) {
    const hint = root.length === 0 ? '; `troupe init` writes a first one' : '';
    return { problems: [at(0, [], `the file is empty${hint}`)] };
  }

  const reader = new PlainReader(at);
  const value = reader.read(document.contents, [], 0);
  // With a part of the data cut off, whatever else could be said would be misleading.
  if (reader.limitBroken) return { problems: reader.problems };

  const pairsOf = memoize((map: YAMLMap) => {
    // Of two pairs with one key the first counts, as in PlainReader.
    return new Map(map.items.toReversed().map((pair) => [keyText(pair), pair] as const));
  });
  const offsetOf = (keys: readonly PropertyKey[], which: 'key' | 'value'): number => {
    let node: unknown = document.contents;
    let offset = startOf(node, 0);
    for (const [index, key] of keys.entries()) {
      if (isAlias(node)) node = reader.targets.get(node);
      if (isMap(node)) {
        const pair = pairsOf(node).get(String(key));
        if (pair === undefined) return offset;
        if (which === 'key' && index === keys.length - 1) return startOf(pair.key, offset);
        // `key:` with nothing after it: point at the key, not at wherever the next line begins.
        const empty = isScalar(pair.value) && pair.value.source === '';
        offset = startOf(empty ? pair.key : pair.value, startOf(pair.key, offset));
        node = pair.value;
      } else if (isSeq(node) && typeof key === 'number' && key < node.items.length) {
        node = node.items[key];
        offset = startOf(node, offset);
      } else {
        return offset;
      }
    }
    return offset;
  };
  return {
    source: {
      file: shownAs,
      value,
      problems: reader.problems,
      problem: (keys, message) => at(offsetOf(keys, 'value'), keys, message),
      keyProblem: (keys, message) => at(offsetOf(keys, 'key'), keys, message),
    },
  };
}

type ProblemAt = (
  offset: number,
  keys: readonly PropertyKey[],
  message: ConfigProblem['message'],
) => ConfigProblem;

/** Turns nodes into JSON data, in the order of the file, and refuses what JSON data cannot be. */
class PlainReader {
  readonly problems: ConfigProblem[] = [];
  /** Whether there are more levels or aliases than allowed, so that the data is not whole. */
  limitBroken = false;
  /** What each alias stands for. */
  readonly targets = new Map<Alias, Node>();
  readonly #anchors = new Map<string, Node>();
  readonly #at: ProblemAt;
  #aliasDepth = 0;
  #aliasedValues = 0;
  /** The limit that broke while an alias was read; reported at that alias. */
  #broken: string | undefined;

  constructor(at: ProblemAt) {
    this.#at = at;
  }

  read(node: unknown, keys: readonly PropertyKey[], depth: number): unknown {
    if (this.#aliasDepth > 0) this.#aliasedValues += 1;
    if (this.#aliasedValues > MAX_ALIASED_VALUES) {
      this.limitBroken = true;
      this.#broken = `the aliases of this file stand for more than ${MAX_ALIASED_VALUES} values; write them out or use fewer`;
      return null;
    }
    const offset = startOf(node, 0);
    if (depth > MAX_DEPTH) {
      this.limitBroken = true;
      this.#broken = `expected at most ${MAX_DEPTH} levels of nesting, got more`;
      this.#refuse(offset, keys, this.#broken);
      return null;
    }
    if (isAlias(node)) return this.#readAlias(node, keys, depth);
    if (!isMap(node) && !isSeq(node) && !isScalar(node)) return null;
    // What is read through an alias has its anchors set already; a name given again later must not go back.
    if (node.anchor !== undefined && this.#aliasDepth === 0) this.#anchors.set(node.anchor, node);
    if (node.tag !== undefined) {
      this.#refuse(offset, keys, `tags are not allowed, got ${tagText(node.tag)}; remove it`);
    }
    if (isScalar(node)) return this.#readScalar(node.value, offset, keys);
    if (isSeq(node)) {
      return node.items.map((item, index) => this.read(item, [...keys, index], depth + 1));
    }
    return this.#readMap(node, keys, depth);
  }

  #readMap(map: YAMLMap, keys: readonly PropertyKey[], depth: number): Record<string, unknown> {
    const result: Record<string, unknown> = {};
    const offsets = new Map<string, number>();
    for (const pair of map.items) {
      const key = keyText(pair);
      const offset = startOf(pair.key, startOf(map, 0));
      const inner = [...keys, key];
      const first = offsets.get(key);
      if (first !== undefined) {
        const { line } = this.#at(first, inner, '');
        this.#refuse(offset, inner, `is given twice; the first one is on line ${line}`);
        continue;
      }
      offsets.set(key, offset);
      if (isAlias(pair.key) || (isScalar(pair.key) && pair.key.tag !== undefined)) {
        this.#refuse(offset, inner, 'expected a plain key, got an alias or a tag');
      } else if (key === '<<') {
        this.#refuse(offset, keys, 'merge keys (<<) are not allowed; write the keys out');
      } else if (key === '__proto__') {
        // Assigning it would change the object's prototype instead of adding a key.
        this.#refuse(offset, keys, 'the key __proto__ is not allowed');
      } else {
        result[key] = this.read(pair.value, inner, depth + 1);
      }
    }
    return result;
  }

  #readAlias(alias: Alias, keys: readonly PropertyKey[], depth: number): unknown {
    const offset = startOf(alias, 0);
    // An alias that is read again, through another one, still means what it meant at its own place.
    const target = this.targets.get(alias) ?? this.#anchors.get(alias.source);
    if (target === undefined) {
      this.#refuse(offset, keys, `*${alias.source} stands before any anchor &${alias.source}`);
      return null;
    }
    const [start, , end] = target.range ?? [0, 0, 0];
    if (start <= offset && offset < end) {
      this.#refuse(offset, keys, `*${alias.source} contains itself`);
      return null;
    }
    this.targets.set(alias, target);
    if (this.#aliasDepth === 0) this.#broken = undefined;
    this.#aliasDepth += 1;
    const value = this.read(target, keys, depth);
    this.#aliasDepth -= 1;
    if (this.#broken !== undefined) this.#refuse(offset, keys, this.#broken);
    return value;
  }

  #readScalar(value: unknown, offset: number, keys: readonly PropertyKey[]): unknown {
    if (value === null || typeof value === 'string' || typeof value === 'boolean') return value;
    if (typeof value !== 'number') {
      this.#refuse(offset, keys, `expected text, a number, true or false, got a ${typeof value}`);
      return null;
    }
    if (!Number.isFinite(value)) {
      this.#refuse(offset, keys, `expected a finite number, got ${value}`);
      return null;
    }
    if (Math.abs(value) > Number.MAX_SAFE_INTEGER) {
      this.#refuse(
        offset,
        keys,
        `the number is too big to be kept exactly (limit ${Number.MAX_SAFE_INTEGER}); put it in quotes if it is a name`,
      );
      return null;
    }
    // JSON has no -0.
    return value === 0 ? 0 : value;
  }

  #refuse(offset: number, keys: readonly PropertyKey[], message: string): void {
    // What an alias repeats is wrong once, at its anchor.
    if (this.#aliasDepth === 0) this.problems.push(this.#at(offset, keys, message));
  }
}

/** The library's words where a user understands them, ours where they are about the library. */
function describeSyntaxError(error: YAMLParseError): string {
  switch (error.code) {
    case 'TAB_AS_INDENT':
      return 'a tab cannot indent a line; use spaces';
    case 'MULTIPLE_DOCS':
      return 'expected one document, got a second one after ---';
    case 'NON_STRING_KEY':
      return 'expected a key that is a plain word';
    case 'BLOCK_AS_IMPLICIT_KEY':
      return 'a second key on the same line; put a text with a colon in it in quotes';
    default:
      return shorten(error.message.replace(/closing (["'])quote/, 'closing quote $1'), 200);
  }
}

function tagText(tag: string): string {
  return shorten(tag.replace('tag:yaml.org,2002:', '!!'), 60);
}

function keyText(pair: Pair): string {
  if (isScalar(pair.key)) return String(pair.key.value);
  return pair.key instanceof Alias ? `*${pair.key.source}` : String(pair.key);
}

function startOf(node: unknown, otherwise: number): number {
  return (node as Node | null | undefined)?.range?.[0] ?? otherwise;
}

function memoize<K extends object, V>(compute: (key: K) => V): (key: K) => V {
  const known = new WeakMap<K, V>();
  return (key) => {
    let value = known.get(key);
    if (value === undefined) {
      value = compute(key);
      known.set(key, value);
    }
    return value;
  };
}

/** The text of a file, or the one problem that keeps it from being read. */
async function readText(file: string, shownAs: string): Promise<string | ConfigProblem> {
  const refuse = (message: string, line = 0, column = 0): ConfigProblem => {
    return { file: shownAs, line, column, path: '', message };
  };
  let bytes: Buffer;
  try {
    // Opening a pipe would wait for its writer, so look before.
    const info = await stat(file);
    if (!info.isFile()) {
      return refuse(
        `expected a file, got ${info.isDirectory() ? 'a directory' : 'something else'}`,
      );
    }
    if (info.size > MAX_FILE_BYTES) return refuse(tooBig(info.size));
    await using handle = await open(file, 'r');
    bytes = await readAtMost(handle, MAX_FILE_BYTES + 1);
  } catch (error) {
    return refuse(describeFileError(error));
  }
  // It may have grown since it was measured.
  if (bytes.length > MAX_FILE_BYTES) return refuse(tooBig(bytes.length));
  if ((bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff)) {
    return refuse('expected UTF-8 text, got UTF-16; save the file as UTF-8');
  }
  let text: string;
  try {
    // Drops a byte order mark.
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return refuse('expected UTF-8 text, got other bytes');
  }
  const control = text.search(/[^\P{Cc}\t\r\n\u0085]/u);
  if (control >= 0) {
    const before = text.slice(0, control).split('\n');
    const code = text.charCodeAt(control).toString(16).toUpperCase().padStart(4, '0');
    return refuse(
      `expected text, got the control character U+${code}`,
      before.length,
      (before.at(-1)?.length ?? 0) + 1,
    );
  }
  return text;
}

function tooBig(bytes: number): string {
  return `expected at most 1 MiB (${MAX_FILE_BYTES} bytes), got ${bytes} bytes or more`;
}

async function readAtMost(handle: FileHandle, limit: number): Promise<Buffer> {
  const buffer = Buffer.alloc(limit);
  let length = 0;
  while (length < limit) {
    const { bytesRead } = await handle.read(buffer, length, limit - length, length);
    if (bytesRead === 0) break;
    length += bytesRead;
  }
  return buffer.subarray(0, length);
}
