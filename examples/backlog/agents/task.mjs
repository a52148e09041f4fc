// What every agent here begins and ends with.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

/** The task as Troupe hands it over: id, title, input, attempt, feedback. */
export const task = JSON.parse(readFileSync(process.env.TROUPE_TASK_FILE, 'utf8'));

/** Writes a file of the project; the agent's working directory is its workspace. */
export function write(path, text) {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  console.log(`wrote ${path}`);
}

/** The project's rule: each change brings one line in `changes/`. */
export function writeChange() {
  write(`changes/${task.id}.md`, `${task.input.change}\n`);
}

/** A JavaScript string literal, in single quotes unless it holds one and no double quote. */
export function quote(text) {
  const double = JSON.stringify(text);
  if (text.includes("'") && !text.includes('"')) return double;
  return `'${double.slice(1, -1).replaceAll('\\"', '"').replaceAll("'", "\\'")}'`;
}

/** Replaces a part of a text that must be there. */
export function replaceIn(path, text, pattern, replacement) {
  if (text.search(pattern) < 0) throw new Error(`${path} has nothing like ${pattern}`);
  return text.replace(pattern, () => replacement);
}
