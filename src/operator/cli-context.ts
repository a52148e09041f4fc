import type { ProjectPlace } from './project.ts';
import { singleQuoted } from './single-quoted.ts';
import type { Environment, Output } from './terminal/terminal.ts';

/** What a command works with: where it was called, and where it writes to. */
export class CliContext {
  readonly cwd: string;
  readonly env: Environment;
  readonly stdout: Output;
  readonly stderr: Output;
  /** `--file`, as it was written. */
  file: string | undefined;

  constructor(cwd: string, env: Environment, stdout: Output, stderr: Output) {
    this.cwd = cwd;
    this.env = env;
    this.stdout = stdout;
    this.stderr = stderr;
  }

  /** @throws {ConfigurationError} the directory of `--file` does not exist */
  async project(): Promise<ProjectPlace> {
    const { findProject } = await import('./project.ts');
    return await findProject(this.cwd, this.file);
  }

  /** How the command has to be called to reach the same project, for the commands that we suggest. */
  commandFor(place: ProjectPlace): string {
    if (this.file === undefined) return 'troupe';
    const { file } = place;
    return `troupe --file ${/^[\w@%+=:,./-]+$/.test(file) ? file : singleQuoted(file)}`;
  }
}
