import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const FILES = 200;

/** A repository with a commit of 200 files on `main`. */
export function makeRepository(directory: string): void {
  mkdirSync(join(directory, 'notes'), { recursive: true });
  for (let i = 0; i < FILES; i++) {
    writeFileSync(join(directory, `file-${i}.txt`), `line of file ${i}\n`.repeat(50));
  }
  writeFileSync(join(directory, 'notes', 'readme.md'), 'Notes.\n');
  git(directory, 'init', '-q', '-b', 'main');
  git(directory, 'add', '-A');
  git(directory, 'commit', '-q', '-m', 'first');
}

/** Runs git, which reads no configuration of this machine. */
export function git(directory: string, ...args: string[]): void {
  execFileSync('git', args, {
    cwd: directory,
    env: {
      PATH: process.env['PATH'],
      HOME: directory,
      GIT_CONFIG_NOSYSTEM: '1',
      GIT_CONFIG_GLOBAL: '/dev/null',
      GIT_AUTHOR_NAME: 'Bench',
      GIT_AUTHOR_EMAIL: 'bench@example.org',
      GIT_COMMITTER_NAME: 'Bench',
      GIT_COMMITTER_EMAIL: 'bench@example.org',
    },
  });
}

/** A patch that adds a file of one line. */
export function patchThatAdds(file: string, line: string): string {
  return `diff --git a/${file} b/${file}
new file mode 100644
--- /dev/null
+++ b/${file}
@@ -0,0 +1 @@
+${line}
`;
}
