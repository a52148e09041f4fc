import { ConfigurationError } from '../protocol/errors.ts';
import type { CommandEvidence } from '../protocol/verdict.ts';
import type { AssignedTask } from './engine.ts';

/** The name of an agent's program that Troupe knows how to start. */
export type AgentPreset = 'codex' | 'claude' | 'gemini';

/** How a program is started that works on the files of its directory without a person. */
export interface AgentPresetSettings {
  /** The program and its arguments; those of the user come after them. Never a shell. */
  readonly command: readonly string[];
  /** What comes after the arguments of the user. */
  readonly last: readonly string[];
  /** The variables that it reads. None is passed on that the user has not named. */
  readonly environment: readonly string[];
  /** Ends by which it says that it could not work, whatever the task: nobody's work is to blame. */
  readonly unavailable: readonly number[];
}

/**
 * The agents' programs by name: each gets its task as text on its standard input and edits files in its working
 * directory. The least that this needs is allowed them, and no more: add what your agent is to be allowed besides
 * (running your tests, for one) as `arguments`.
 *
 * - `codex`: `exec` runs without a person, in a sandbox that may only read unless `--sandbox workspace-write` is given;
 *   `-` reads the prompt from standard input. `--full-auto` is deprecated.
 *   Sources: https://developers.openai.com/codex/noninteractive, `codex exec --help`,
 *   https://developers.openai.com/codex/environment-variables
 * - `claude`: `-p` runs without a person and takes piped text as its input; `--permission-mode acceptEdits` lets it edit
 *   files, while commands are allowed by `--allowedTools`.
 *   Sources: https://docs.anthropic.com/en/docs/claude-code/cli-reference,
 *   https://docs.anthropic.com/en/docs/claude-code/sdk/sdk-headless, https://code.claude.com/docs/en/env-vars
 * - `gemini`: without a terminal it reads the prompt from standard input (`cat file | gemini`) and ends;
 *   `--approval-mode auto_edit` lets it edit files. Where its trusted folders are switched on it refuses a directory
 *   that is new, as each workspace is: `--skip-trust` is for the user to give.
 *   Sources: https://geminicli.com/docs/cli/cli-reference, https://geminicli.com/docs/cli/headless,
 *   https://geminicli.com/docs/cli/trusted-folders, https://geminicli.com/docs/get-started/authentication,
 *   https://geminicli.com/docs/resources/troubleshooting (41 authentication, 44 sandbox, 52 configuration)
 */
export const AGENT_PRESETS: Readonly<Record<AgentPreset, AgentPresetSettings>> = {
  codex: {
    command: ['codex', 'exec', '--sandbox', 'workspace-write'],
    last: ['-'],
    environment: ['CODEX_API_KEY', 'CODEX_ACCESS_TOKEN', 'CODEX_HOME'],
    unavailable: [],
  },
  claude: {
    command: ['claude', '-p', '--permission-mode', 'acceptEdits'],
    last: [],
    environment: [
      'ANTHROPIC_API_KEY',
      'ANTHROPIC_AUTH_TOKEN',
      'ANTHROPIC_BASE_URL',
      'CLAUDE_CODE_OAUTH_TOKEN',
    ],
    unavailable: [],
  },
  gemini: {
    command: ['gemini', '--approval-mode', 'auto_edit'],
    last: [],
    environment: [
      'GEMINI_API_KEY',
      'GOOGLE_API_KEY',
      'GOOGLE_APPLICATION_CREDENTIALS',
      'GOOGLE_CLOUD_LOCATION',
      'GOOGLE_CLOUD_PROJECT',
      'GOOGLE_GENAI_USE_VERTEXAI',
    ],
    unavailable: [41, 44, 52],
  },
};

/** An agent that is one of the programs of `AGENT_PRESETS`. */
export interface PresetAgentOptions {
  readonly preset: AgentPreset;
  /** Further arguments of the program, such as `['--model', '…']`. Default none. */
  readonly arguments?: readonly string[];
  /**
   * Which of the preset's variables it is given, each from the environment of this process; verification does not get
   * them, and their values are taken out of logs and messages. Default none: a program where its user has logged in
   * needs none.
   */
  readonly environment?: readonly string[];
  /** What `TROUPE_PROJECT` says. Default the top of the repository. */
  readonly projectDirectory?: string;
}

/**
 * @returns the whole command
 * @throws {ConfigurationError} no such preset, or a variable that it does not know
 */
export function presetCommand(agent: string, options: PresetAgentOptions): readonly string[] {
  const { preset, arguments: more = [], environment = [] } = options;
  if (!Object.hasOwn(AGENT_PRESETS, preset)) {
    throw new ConfigurationError(
      `Expected the preset of agent "${agent}" to be one of ${Object.keys(AGENT_PRESETS).join(', ')}, got ${JSON.stringify(preset)}.`,
    );
  }
  const { command, last, environment: known } = AGENT_PRESETS[preset];
  if (!isListOfTexts(more)) {
    throw new ConfigurationError(
      `Expected the arguments of agent "${agent}" to be a list of texts without NUL.`,
    );
  }
  // Not shown: people write the value where its name belongs.
  if (!isListOfTexts(environment) || !environment.every((name) => known.includes(name))) {
    throw new ConfigurationError(
      `Expected the environment of agent "${agent}" to be names from ${known.join(', ')}; others are for the environment of the project, which every command gets.`,
    );
  }
  return [...command, ...more, ...last];
}

function isListOfTexts(value: unknown): value is readonly string[] {
  return (
    Array.isArray(value) && value.every((each) => typeof each === 'string' && !each.includes('\0'))
  );
}

/** The task as a text for such a program. It is data: no part of it is ever an argument. */
export function promptFor({
  title,
  input,
  feedback,
  guidance,
  fix = null,
}: Pick<AssignedTask, 'title' | 'input' | 'feedback' | 'guidance'> &
  Partial<Pick<AssignedTask, 'fix'>>): string {
  const parts = [
    `You work alone on a copy of a git repository: the current directory. Nobody can answer questions. ${fix === null ? 'Do the task below by editing files here.' : 'The task below was done here and refused: mend that by editing files here.'} What the files are when you end is handed in, and commands of the project decide whether it is accepted.`,
    ...(fix === null ? [] : [`# What to mend\n\n${fix.instruction}`, ...fix.commands.map(failure)]),
    `# Task\n\n${title}`,
  ];
  if (input !== null) {
    const text = typeof input === 'string' ? input : JSON.stringify(input, null, 2);
    parts.push(`# Input\n\n${text}`);
  }
  if (feedback.length > 0) {
    parts.push(`# What was wrong with earlier attempts, newest last\n\n${listOf(feedback)}`);
  }
  if (guidance.length > 0) parts.push(`# Advice\n\n${listOf(guidance)}`);
  return `${parts.join('\n\n')}\n`;
}

const failure = ({ name, exitCode, signal, excerpt }: CommandEvidence): string =>
  `## ${name} (${signal ?? `exit code ${exitCode ?? 'unknown'}`})\n\n${excerpt}`;

function listOf(texts: readonly string[]): string {
  return texts.map((text) => `- ${text.replaceAll('\n', '\n  ')}`).join('\n');
}
