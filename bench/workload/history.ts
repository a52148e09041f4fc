import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

/** What a change does to files: the whole content afterwards; null removes the file. */
export type Files = Readonly<Record<string, string | Buffer | null>>;

interface Commit {
  readonly name: string;
  readonly parent: string | undefined;
  readonly title: string;
  readonly files: Files;
}

/**
 * Commits that are to become a workload. The same calls give the same bytes: names, times and the way patches are written
 * do not depend on the machine.
 */
export class History {
  readonly #commits: Commit[] = [];
  readonly #state = new Map<string, string | Buffer>();
  #tip: string | undefined;

  /** Goes on from the tip. */
  commit(name: string, title: string, files: Files): void {
    this.#commits.push({ name, parent: this.#tip, title, files });
    for (const [file, content] of Object.entries(files)) {
      if (content === null) this.#state.delete(file);
      else this.#state.set(file, content);
    }
    this.#tip = name;
  }

  /** A commit that nothing builds on. @param parent default the tip */
  aside(name: string, title: string, files: Files, parent = this.#tip): void {
    this.#commits.push({ name, parent, title, files });
  }

  /** A text file as the tip has it. */
  read(file: string): string {
    const content = this.#state.get(file);
    if (content === undefined) throw new Error(`Expected ${file} at the tip; it is not there.`);
    return content.toString();
  }

  /**
   * Writes the start as a bundle and every other commit as a patch.
   * @param start the name of the commit that is the start
   * @param fileOf where the patch of a commit goes, relative to the folder; undefined: nobody wants it
   */
  export(
    folder: string,
    start: string,
    fileOf: (name: string) => string | undefined,
  ): { readonly baseTree: string; readonly tipTree: string } {
    const repository = mkdtempSync(path.join(tmpdir(), 'troupe-workload-'));
    try {
      const git = (...args: string[]): string => runGit(repository, args);
      git('init', '--quiet', '--bare', '--initial-branch=main');
      runGit(repository, ['fast-import', '--quiet', '--done'], this.#stream());
      git('update-ref', 'refs/heads/main', branch(start));
      git('bundle', 'create', '--quiet', path.join(folder, 'base.bundle'), 'refs/heads/main');
      for (const { name, parent } of this.#commits) {
        const relative = fileOf(name);
        if (parent === undefined || relative === undefined) continue;
        const file = path.join(folder, relative);
        mkdirSync(path.dirname(file), { recursive: true });
        const patch = git(
          ...['format-patch', '-1', '--stdout', '--binary', '--full-index', '--no-signature'],
          branch(name),
        );
        writeFileSync(file, patch, 'latin1');
      }
      const treeOf = (name: string) => git('rev-parse', `${branch(name)}^{tree}`).trim();
      return { baseTree: treeOf(start), tipTree: treeOf(this.#tip ?? start) };
    } finally {
      rmSync(repository, { recursive: true, force: true });
    }
  }

  #stream(): Buffer {
    const parts: Buffer[] = [];
    const line = (text: string): void => void parts.push(Buffer.from(`${text}\n`));
    const data = (content: string | Buffer): void => {
      const bytes = Buffer.from(content as string);
      line(`data ${bytes.length}`);
      parts.push(bytes, Buffer.from('\n'));
    };
    for (const [index, { name, parent, title, files }] of this.#commits.entries()) {
      line(`commit ${branch(name)}`);
      line(`committer Workload <workload@example.org> ${1_760_000_000 + index * 60} +0000`);
      data(title);
      if (parent !== undefined) line(`from ${branch(parent)}`);
      for (const [file, content] of Object.entries(files)) {
        const quoted = JSON.stringify(file);
        if (content === null) line(`D ${quoted}`);
        else {
          line(`M 100644 inline ${quoted}`);
          data(content);
        }
      }
      line('');
    }
    line('done');
    return Buffer.concat(parts);
  }
}

const branch = (name: string): string => `refs/heads/all/${name}`;

function runGit(cwd: string, args: readonly string[], input?: Buffer): string {
  return execFileSync('git', [...args], {
    cwd,
    ...(input === undefined ? {} : { input }),
    encoding: 'latin1',
    maxBuffer: 2 ** 30,
    env: {
      PATH: process.env['PATH'],
      HOME: '/nonexistent',
      LC_ALL: 'C',
      GIT_CONFIG_NOSYSTEM: '1',
      GIT_CONFIG_GLOBAL: '/dev/null',
    },
  });
}

/** Writes a file of the workload, complete before it has its name. */
export function writeScript(file: string, text: string): void {
  writeFileSync(`${file}.new`, text);
  chmodSync(`${file}.new`, 0o755);
  renameSync(`${file}.new`, file);
}

/** The same numbers for the same seed, on every machine. Source: mulberry32, public domain. */
export function seededRandom(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}
