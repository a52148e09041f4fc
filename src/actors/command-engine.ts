import { mkdir, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { DIED_OF } from '../machines/policies/failure-class.ts';
import { ConfigurationError, TroupeError } from '../protocol/errors.ts';
import { runCommand } from '../workspace/child-process.ts';
import { diskTrouble } from '../workspace/disk-trouble.ts';
import { excerptOf } from '../workspace/excerpt.ts';
import {
  AGENT_PRESETS,
  type PresetAgentOptions,
  presetCommand,
  promptFor,
} from './agent-presets.ts';
import type { AssignedTask, Engine } from './engine.ts';
import type { GitProject } from './git-project.ts';
import { OutputStream } from './output-stream.ts';

export interface CommandEngineOptions {
  /** An array is program and arguments; a string is your own shell command. `{project}` becomes `projectDirectory`. */
  readonly run: string | readonly string[];
  /** What `{project}` stands for. */
  readonly projectDirectory: string;
}

/**
 * An agent that is a command. It runs in the attempt's workspace and edits files there; exit 0 hands them in. Its
 * task is in the file named by `TROUPE_TASK_FILE`: { id, title, input, attempt, feedback, guidance, fix }. Where `fix` is not
 * null, it is to mend what was handed in (see AssignedTask); `feedback` ends with that instruction, and `TROUPE_FIX` is
 * set. Task text is never put into a command line.
 */
export function commandEngine(project: GitProject, options: CommandEngineOptions): Engine {
  const { run, projectDirectory } = options;
  // By a function: in a text `$&` and its like would stand for something.
  const command =
    typeof run === 'string'
      ? run
      : run.map((part) => part.replaceAll('{project}', () => projectDirectory));
  return engineOf(project, { command, projectDirectory, variables: [], unavailable: [] });
}

/**
 * An agent that is a program of `AGENT_PRESETS`: as a command, and its task is on its standard input besides.
 * @throws {ConfigurationError} no such preset, or a variable that it does not know
 */
export function presetEngine(
  project: GitProject,
  agent: string,
  options: PresetAgentOptions,
): Engine {
  const command = presetCommand(agent, options);
  const variables = options.environment ?? [];
  project.hideValuesOf(variables);
  return engineOf(project, {
    command,
    projectDirectory: options.projectDirectory ?? project.repository.root,
    variables,
    unavailable: AGENT_PRESETS[options.preset].unavailable,
    stdin: promptFor,
  });
}

interface CommandEngine {
  readonly command: string | readonly string[];
  readonly projectDirectory: string;
  /** Names of variables that it is given besides those of the project. */
  readonly variables: readonly string[];
  /** Exit codes that are nobody's fault. */
  readonly unavailable: readonly number[];
  readonly stdin?: (task: AssignedTask) => string;
}

function engineOf(project: GitProject, options: CommandEngine): Engine {
  const { command } = options;
  return async ({ task, workspace, signal, stream, heartbeat }) => {
    if (workspace === null) {
      throw new ConfigurationError(
        `Task "${task.id}" has no workspace: a command agent works on the project's files, so its gatekeeper must be the git one.`,
      );
    }
    const directory = project.taskDirectory(task.run, task.id);
    await mkdir(directory, { recursive: true });
    const { attempt, fix } = task;
    const label = fix === null ? attempt : `${attempt}-fix${fix.number}`;
    const taskFile = path.join(directory, `task-${label}.json`);
    const feedback = [
      ...task.feedback,
      ...task.guidance,
      ...(fix === null ? [] : [fix.instruction]),
    ];
    const logFile = path.join(directory, `agent-${label}.log`);
    // A link or a directory that somebody has put there is not written through, and no reason to fail.
    for (const file of [taskFile, logFile]) await rm(file, { force: true, recursive: true });
    await writeFile(taskFile, `${JSON.stringify({ ...task, feedback }, null, 2)}\n`, {
      flag: 'wx',
    });
    const env = project.environment(
      {
        ...workspace.env,
        TROUPE_RUN: task.run,
        TROUPE_TASK: task.id,
        TROUPE_ATTEMPT: String(task.attempt),
        ...(fix === null ? {} : { TROUPE_FIX: String(fix.number) }),
        TROUPE_TASK_FILE: taskFile,
        TROUPE_PROJECT: options.projectDirectory,
      },
      options.variables,
    );
    const output = new OutputStream(stream(), project.redact, `… the rest is in ${logFile}`);
    const result = await runCommand({
      command,
      cwd: workspace.directory,
      env,
      // The agent's own limit aborts the signal; this one is only a backstop.
      timeoutMs: 24 * 3_600_000,
      logFile,
      ...(options.stdin === undefined ? {} : { stdin: options.stdin(task) }),
      redact: project.redact,
      signal,
      processes: project.processes,
      onOutput: (chunk, from) => {
        // Also when the stream takes no more.
        heartbeat();
        output.take(chunk, from);
      },
    }).finally(() => output.end());
    signal.throwIfAborted();
    const said = project.redact(result.output);
    if (result.missingTool) {
      throw new TroupeError(
        'unavailable',
        `The agent's command could not be started (${result.spawnError ?? 'not found'}): ${result.command}`,
      );
    }
    if (result.exitCode !== 0) {
      if (result.spawnError !== undefined) {
        throw new TroupeError(
          'unavailable',
          `The agent's command could not be started (${result.spawnError}): ${result.command}`,
        );
      }
      if (result.exitCode !== null && options.unavailable.includes(result.exitCode)) {
        throw new TroupeError(
          'unavailable',
          `The agent's command could not work (exit code ${result.exitCode}): ${result.command}\n${excerptOf(said, 2000)}`,
        );
      }
      const trouble = await diskTrouble([workspace.directory, env['TMPDIR'] ?? os.tmpdir()]);
      if (trouble !== undefined) {
        throw new TroupeError(
          'unavailable',
          `The agent's command failed while ${trouble}: ${result.command}\n${excerptOf(said, 2000)}`,
        );
      }
      const how =
        result.signal === null ? `exited with ${result.exitCode}` : `was ended by ${result.signal}`;
      throw new TroupeError(
        'unhandled',
        `The agent's command ${how}: ${result.command}\n${excerptOf(said, 2000)}`,
        result.signal === null ? {} : { context: { [DIED_OF]: result.signal } },
      );
    }
    return { output: excerptOf(said, 2000) };
  };
}
