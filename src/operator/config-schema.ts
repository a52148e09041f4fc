import * as z from 'zod';
import {
  AGENT_PRESETS,
  AGENT_STAGES,
  type AgentPreset,
  CHANGE_RULES,
  REVIEW_DECISIONS,
  REVIEW_MODES,
  RULE_ACTIONS,
} from '../index.ts';
import {
  type ConfigProblem,
  describeValue,
  nearest,
  shorten,
  suggestion,
} from './config-problems.ts';
import type { ConfigSource } from './config-source.ts';

/*
 * What each part of troupe.yaml may be. The text of every schema says what is *expected*; `checkValue` adds the place,
 * what came instead, and what was probably meant. The text of an unknown key's issue is the list of the known keys.
 */

/** `timeout: 30d` is refused: a timer of Node cannot wait for more than 24.8 days. */
const MAX_DURATION_MS = 168 * 3_600_000;

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

/** @returns milliseconds; undefined when the text is not a duration between 1ms and 168h */
function parseDurationMs(text: string): number | undefined {
  const [, count, unit] = /^(\d{1,9})(ms|s|m|h)$/.exec(text) ?? [];
  if (count === undefined || unit === undefined) return undefined;
  const durationMs = Number(count) * (UNIT_MS[unit] ?? Number.NaN);
  return durationMs >= 1 && durationMs <= MAX_DURATION_MS ? durationMs : undefined;
}

const DURATION = 'a duration from 1ms to 168h, such as 200ms, 10s, 5m or 2h';

function duration() {
  return z.unknown().transform((value, context): number => {
    const durationMs = typeof value === 'string' ? parseDurationMs(value) : undefined;
    if (durationMs !== undefined) return durationMs;
    const hint =
      typeof value === 'number' && Number.isInteger(value) && value > 0
        ? `; add the unit: ${value}s or ${value}ms`
        : '';
    context.addIssue({ code: 'custom', message: DURATION, params: { hint } });
    return z.NEVER;
  });
}

function text(what: string, pattern: RegExp) {
  return z.string({ error: what }).regex(pattern);
}

function wholeNumber(min: number, max: number) {
  return z
    .int({ error: `a whole number from ${min} to ${max}` })
    .min(min)
    .max(max);
}

function flag() {
  return z.boolean({ error: 'true or false' });
}

function oneOf<const T extends readonly [string, ...string[]]>(...values: T) {
  return z.enum(values, { error: `one of ${values.join(', ')}` });
}

function section<S extends z.core.$ZodShape>(what: string, shape: S) {
  const known = Object.keys(shape).join(',');
  return z.strictObject(shape, {
    error: (issue) => (issue.code === 'unrecognized_keys' ? known : what),
  });
}

const NAME =
  'a name of 1 to 64 characters from a-z 0-9 . _ - (no two dots in a row), beginning with a letter or digit';
const NAME_PATTERN = /^(?!.*\.\.)[a-z0-9][a-z0-9._-]{0,63}$/;

function name() {
  return text(NAME, NAME_PATTERN);
}

export const MAX_CHAIN = 20;

/** One agent, or several in the order in which they are asked. */
function agentNames() {
  return z.unknown().transform((value, context): string | readonly string[] => {
    const refuse = (message: string, path: PropertyKey[] = []) =>
      context.addIssue({ code: 'custom', message, path });
    const isName = (one: unknown) => typeof one === 'string' && NAME_PATTERN.test(one);
    if (!Array.isArray(value)) {
      if (!isName(value)) refuse(typeof value === 'string' ? NAME : `${NAME}, or a list of them`);
      return value as string;
    }
    if (value.length === 0) refuse('a list of at least one agent');
    if (value.length > MAX_CHAIN) refuse(`at most ${MAX_CHAIN} agents`);
    for (const [index, one] of value.slice(0, MAX_CHAIN).entries()) {
      if (!isName(one)) refuse(NAME, [index]);
    }
    return value as readonly string[];
  });
}

function filePath() {
  return text('a path relative to the project', /^[^\0]{1,1000}$/);
}

const VARIABLE = /^[A-Za-z_][A-Za-z0-9_]{0,127}$/;
const MAX_ARGUMENTS = 1_000;
const COMMAND = 'a shell command, or a list of a program and its arguments';

/** A text is a shell command that the user wrote; a list is started without any shell. */
function command() {
  return z.unknown().transform((value, context): string | readonly string[] => {
    if (typeof value === 'string' && value.trim() !== '' && !value.includes('\0')) return value;
    if (!Array.isArray(value) || value.length === 0) {
      context.addIssue({ code: 'custom', message: COMMAND });
      return z.NEVER;
    }
    if (value.length > MAX_ARGUMENTS) {
      context.addIssue({ code: 'custom', message: `at most ${MAX_ARGUMENTS} arguments` });
      return z.NEVER;
    }
    for (const [index, part] of value.entries()) {
      const program = index === 0;
      if (typeof part === 'string' && !part.includes('\0') && !(program && part.trim() === '')) {
        continue;
      }
      context.addIssue({
        code: 'custom',
        message: program ? 'the name of a program' : 'an argument (text)',
        path: [index],
        params: {
          hint: typeof part === 'number' || typeof part === 'boolean' ? '; put it in quotes' : '',
        },
      });
    }
    return value as readonly string[];
  });
}

const backoff = section('a mapping with initial, factor and max', {
  initial: duration().optional(),
  factor: z.number({ error: 'a number from 1 to 10' }).min(1).max(10).optional(),
  max: duration().optional(),
}).refine(({ initial, max }) => initial === undefined || max === undefined || initial <= max, {
  error: 'a max that is not shorter than initial',
  path: ['max'],
});

const limits = section('a mapping of limits', {
  attempts: wholeNumber(1, 1_000).optional(),
  sameError: wholeNumber(1, 1_000).optional(),
  sameChange: wholeNumber(1, 1_000).optional(),
  sameFeedback: wholeNumber(1, 1_000).optional(),
  infrastructureAttempts: wholeNumber(1, 1_000).optional(),
  interruptions: wholeNumber(1, 1_000).optional(),
  backoff: backoff.optional(),
  infrastructureBackoff: backoff.optional(),
});

const MAX_CONCURRENCY = 100;

function keyPath() {
  return text(
    "a path into the task's input, such as input.customer",
    /^input(?:\.[A-Za-z0-9_-]{1,100}){0,10}$/,
  );
}

const rate = (what: string) =>
  section(what, {
    limit: wholeNumber(1, 1_000_000),
    period: duration(),
    key: keyPath().optional(),
  });

/** What limits an agent by key and by time. */
const flow = {
  perKey: section('a mapping with key and limit', {
    key: keyPath(),
    limit: wholeNumber(1, MAX_CONCURRENCY),
  }).optional(),
  rateLimit: rate('a mapping with limit, period and key').optional(),
  throttle: rate('a mapping with limit, period and key').optional(),
  debounce: section('a mapping with key and period', {
    key: keyPath(),
    period: duration(),
  }).optional(),
};

const qaSettings = section('a mapping such as { agent: mender, sessions: 3, iterations: 2 }', {
  agent: agentNames(),
  sessions: wholeNumber(1, 10).optional(),
  iterations: wholeNumber(1, 10).optional(),
});

/** Not a union, whose error would not say which setting is wrong. */
const qaOfTask = z.unknown().transform((value, context) => {
  if (value === false) return value;
  const parsed = qaSettings.safeParse(value);
  if (parsed.success) return parsed.data;
  for (const issue of parsed.error.issues) context.issues.push(issue as never);
  return z.NEVER;
});

/** What any agent may have. */
const agentSettings = () => ({
  tract: z.enum(['internal', 'external'], { error: 'one of internal, external' }).optional(),
  concurrency: wholeNumber(1, MAX_CONCURRENCY).optional(),
  mailbox: wholeNumber(1, 1_000_000).optional(),
  overflow: z
    .enum(['refuse', 'wait'], {
      error: 'refuse (a task that is too many is tried again later) or wait',
    })
    .optional(),
  fallback: name().optional(),
  breaker: section('a mapping with failures, open and successes', {
    failures: wholeNumber(1, 1_000).optional(),
    open: duration().optional(),
    successes: wholeNumber(1, 1_000).optional(),
  }).optional(),
  ...flow,
});

const PRESET_NAMES = Object.keys(AGENT_PRESETS) as [AgentPreset, ...AgentPreset[]];

/** An agent has either a command of its own or a preset, and only with a preset what belongs to that. */
function checkPresetOf(
  given: {
    readonly run?: unknown;
    readonly preset?: AgentPreset | undefined;
    readonly arguments?: unknown;
    readonly environment?: readonly string[] | undefined;
  },
  context: z.RefinementCtx,
): void {
  const refuse = (path: PropertyKey[], message: string) =>
    context.addIssue({ code: 'custom', path, message });
  const { run, preset, environment = [] } = given;
  if (preset === undefined) {
    if (run === undefined) refuse(['run'], `${COMMAND}, or preset: ${PRESET_NAMES.join(', ')}`);
    for (const key of ['arguments', 'environment'] as const) {
      if (given[key] !== undefined) refuse([key], 'nothing here without a preset');
    }
    return;
  }
  if (run !== undefined) refuse(['run'], 'nothing here beside a preset');
  const known = AGENT_PRESETS[preset].environment;
  for (const [index, variable] of environment.entries()) {
    if (known.includes(variable) || !VARIABLE.test(variable)) continue;
    refuse(['environment', index], `one of ${known.join(', ')}`);
  }
}

const agent = z.discriminatedUnion(
  'engine',
  [
    section('an agent', {
      engine: z.literal('patch'),
      ...agentSettings(),
    }),
    section('an agent', {
      engine: z.literal('command'),
      run: command().optional(),
      preset: oneOf(...PRESET_NAMES).optional(),
      arguments: z
        .array(text('an argument (text)', /^[^\0]*$/), { error: 'a list of arguments' })
        .max(MAX_ARGUMENTS, { error: `at most ${MAX_ARGUMENTS} arguments` })
        .optional(),
      environment: z
        .array(text('the name of an environment variable', VARIABLE), {
          error: 'a list of names of environment variables',
        })
        .max(200, { error: 'at most 200 names' })
        .optional(),
      ...agentSettings(),
      timeout: duration().optional(),
      stages: z
        .array(oneOf(...AGENT_STAGES), { error: `a list of ${AGENT_STAGES.join(', ')}` })
        .min(1)
        .refine((stages) => new Set(stages).size === stages.length, {
          error: 'each stage once',
        })
        .optional(),
      ...flow,
    }).superRefine(checkPresetOf),
  ],
  {
    error: (issue) =>
      issue.code === 'invalid_union'
        ? 'one of patch, command'
        : 'a mapping such as { engine: command, run: … }',
  },
);

function commandName() {
  return text(
    'a name of 1 to 64 letters, digits, spaces and . _ : - that begins with a letter or digit',
    /^[A-Za-z0-9][A-Za-z0-9 ._:-]{0,63}$/,
  );
}

/** Git's own variables, and ours, are not for ports. */
const PORT_VARIABLE = /^(?!(?:GIT|TROUPE)_)[A-Za-z_]\w{0,99}$/i;

/** In the shortest way of writing it, and not of git's own. */
const PATH_BELOW =
  /^(?!\.git(?:\/|$))(?!\.{1,2}(?:\/|$))[^\0/]{1,255}(?:\/(?!\.{1,2}(?:\/|$))[^\0/]{1,255}){0,50}$/;

const pathsBelow = (example: string) =>
  z
    .array(text('a path below the top of the repository, such as node_modules', PATH_BELOW), {
      error: `a list of paths from the top of the repository, such as ${example}`,
    })
    .min(1)
    .max(100, { error: 'at most 100 paths' });

const verifyCommand = section('a mapping such as { name: test, run: npm test }', {
  name: commandName(),
  run: command(),
  timeout: duration().optional(),
  allowFail: flag().optional(),
  always: flag().optional(),
  infrastructureExitCodes: z
    .array(wholeNumber(1, 255), { error: 'a list of exit codes from 1 to 255' })
    .optional(),
  cache: section('a mapping such as { key: [package-lock.json], paths: [node_modules] }', {
    key: pathsBelow('[package-lock.json, package.json]'),
    paths: pathsBelow('[node_modules]'),
  }).optional(),
});

const acceptCommand = section('a mapping such as { name: speaks, run: ./accept.sh }', {
  name: commandName(),
  run: command(),
  timeout: duration().optional(),
});

const share = () =>
  z
    .number({ error: 'a number from 0 to 1' })
    .min(0, { error: 'a number from 0 to 1' })
    .max(1, { error: 'a number from 0 to 1' });

export const MAX_REVIEWERS = 20;

const review = section('a mapping such as { mode: gate, reviewers: [{ name: …, run: … }] }', {
  mode: oneOf(...REVIEW_MODES).optional(),
  decide: oneOf(...REVIEW_DECISIONS).optional(),
  reviewers: z
    .array(acceptCommand, { error: 'a list with at least one reviewer' })
    .min(1)
    .max(MAX_REVIEWERS, { error: `at most ${MAX_REVIEWERS} reviewers` }),
  failures: wholeNumber(1, 1_000).optional(),
  pause: duration().optional(),
});

/** What is refused in a change, or needs a person, whatever the commands say. */
const gate = section('a mapping such as { rules: { mass-deletion: refuse } }', {
  rules: section(
    'a mapping of rules, such as { tests-deleted: refuse }',
    Object.fromEntries(CHANGE_RULES.map((rule) => [rule, oneOf(...RULE_ACTIONS).optional()])),
  ).optional(),
  maxFileBytes: wholeNumber(1, Number.MAX_SAFE_INTEGER).optional(),
  maxDeletedFiles: wholeNumber(0, 1_000_000).optional(),
  maxDeletedShare: share().optional(),
});

const policyRule = section('a rule such as { when: { task: … }, decide: retry }', {
  when: section('a mapping of conditions: task, state, agent', {
    task: name().optional(),
    state: oneOf('escalated', 'awaitingApproval').optional(),
    agent: name().optional(),
  }),
  decide: oneOf('retry', 'approve', 'block', 'cancel'),
  guidance: text('text of 1 to 4000 characters', /^[\s\S]{1,4000}$/).optional(),
  times: wholeNumber(1, 1_000).optional(),
});

export const encryptionSchema = section('a mapping with keyFile or keyVariable', {
  keyFile: text('the path of a file with keys', /^[^\0]{1,1000}$/).optional(),
  keyVariable: text(
    'the name of an environment variable',
    /^[A-Za-z_][A-Za-z0-9_]{0,127}$/,
  ).optional(),
}).refine(({ keyFile, keyVariable }) => (keyFile === undefined) !== (keyVariable === undefined), {
  error: 'either keyFile or keyVariable',
});

const days = z
  .number({ error: 'a number of days from 0 to 36500' })
  .min(0, { error: 'a number of days from 0 to 36500' })
  .max(36_500, { error: 'a number of days from 0 to 36500' });

const retentionSettings = section(
  'false, or a mapping such as { checkpointsPerActor: 100, finishedRunsDays: 30 }',
  {
    checkpointsPerActor: wholeNumber(1, 1_000_000).optional(),
    finishedRunsDays: days.optional(),
    deadLetterDays: days.optional(),
    deadLetters: wholeNumber(1, 1_000_000).optional(),
    artifactDays: days.optional(),
    artifacts: wholeNumber(1, 1_000_000).optional(),
    artifactMegabytes: wholeNumber(1, 1_000_000).optional(),
    logDays: days.optional(),
    logs: wholeNumber(1, 1_000_000).optional(),
    logMegabytes: wholeNumber(1, 1_000_000).optional(),
    auditDays: days.optional(),
    auditEntries: wholeNumber(1, 1_000_000).optional(),
  },
);

/** How much history is kept; false: all. Not a union, whose error would not say which setting is wrong. */
const retention = z.unknown().transform((value, context) => {
  if (value === false) return value;
  const parsed = retentionSettings.safeParse(value);
  if (parsed.success) return parsed.data;
  for (const issue of parsed.error.issues) context.issues.push(issue as never);
  return z.NEVER;
});

const stagingSettings = section(
  'true, false, or a mapping such as { stageAbove: 120, enableFirst: 30 }',
  {
    stageAbove: wholeNumber(1, 1_000_000).optional(),
    enableFirst: wholeNumber(1, 1_000_000).optional(),
  },
);

const staging = z.unknown().transform((value, context) => {
  if (typeof value === 'boolean') return value;
  const parsed = stagingSettings.safeParse(value);
  if (parsed.success) return parsed.data;
  for (const issue of parsed.error.issues) context.issues.push(issue as never);
  return z.NEVER;
});

const taskIds = (what: string) =>
  z.array(name(), { error: what }).min(1).max(1_000, { error: 'at most 1000 names' });
const budget = { budget: duration().optional(), onBudget: oneOf('escalate', 'cancel').optional() };

const workflow = section('a mapping with phases', {
  order: oneOf('sequential', 'parallel').optional(),
  ...budget,
  phases: z
    .array(
      section('a phase such as { id: build, tasks: [parser, printer] }', {
        id: name(),
        title: text('a text of 1 to 200 characters on one line', /^[^\p{Cc}]{1,200}$/u).optional(),
        tasks: taskIds('a list of at least one task id'),
        order: oneOf('sequential', 'parallel').optional(),
        after: z
          .array(name(), { error: 'a list of phases' })
          .max(100, { error: 'at most 100 phases' })
          .optional(),
        ...budget,
        onFailure: oneOf('goOn', 'hold').optional(),
      }),
      { error: 'a list of at least one phase' },
    )
    .min(1)
    .max(100, { error: 'at most 100 phases' }),
});

/** The root of troupe.yaml. `tasks` is checked apart, because it may be another file. */
export const projectSchema = section('a mapping of settings (version, verify, agents, tasks, …)', {
  version: z.literal(1, { error: '1 (the version of this format)' }),
  target: text(
    'the name of a branch, such as main',
    // What git-check-ref-format allows, less the names that are easily mistaken for options or full refs.
    /^(?!-|\/|\.|refs\/|HEAD$|@$)(?!.*(?:\.\.|\/\/|\/\.|@\{|\.lock(?:\/|$)))[^\s\p{Cc}~^:?*[\\]{1,200}(?<![./])$/u,
  ).optional(),
  verify: z
    .array(verifyCommand, { error: 'a list with at least one command' })
    .min(1)
    .max(100, { error: 'at most 100 commands' }),
  tests: z
    .literal('none', { error: 'the word none, and only if the project has no tests' })
    .optional(),
  verifyAtOnce: wholeNumber(1, 64).optional(),
  ports: z
    .array(text('the name of an environment variable such as PORT', PORT_VARIABLE), {
      error: 'a list of names of environment variables, such as [PORT, API_PORT]',
    })
    .max(20, { error: 'at most 20 names' })
    .refine((names) => new Set(names).size === names.length, { error: 'each name once' })
    .optional(),
  preflight: flag().optional(),
  noTests: text(
    'text of 1 to 1000 characters that says why',
    /^(?=[\s\S]*\S)[\s\S]{1,1000}$/,
  ).optional(),
  protect: z
    .array(text('a glob of paths from the top of the repository', /^[^\0]{1,1000}$/), {
      error: 'a list of globs, such as ["migrations/**"]',
    })
    .max(1_000, { error: 'at most 1000 globs' })
    .optional(),
  gate: gate.optional(),
  review: review.optional(),
  environment: z
    .array(text('the name of an environment variable', VARIABLE), {
      error: 'a list of names of environment variables',
    })
    .max(200, { error: 'at most 200 names' })
    .optional(),
  agents: z
    .record(name(), agent, {
      error: (issue) => (issue.code === 'invalid_key' ? NAME : 'a mapping of agents by name'),
    })
    .optional(),
  limits: limits.optional(),
  qa: qaSettings.optional(),
  overseer: section('a mapping with policy', {
    policy: z
      .array(policyRule, { error: 'a list of rules' })
      .max(1_000, { error: 'at most 1000 rules' })
      .optional(),
  }).optional(),
  retention: retention.optional(),
  concurrency: wholeNumber(1, 1_000).optional(),
  staging: staging.optional(),
  encryption: encryptionSchema.optional(),
  workflow: workflow.optional(),
  tasks: z.unknown().optional(),
});

/** Of one task. */
export const MAX_DEPENDENCIES = 20;
export const MAX_PATCHES = 1_000;
export const MAX_ACCEPT_COMMANDS = 20;

/** The tasks, in troupe.yaml or in the file that it names. */
export const tasksSchema = z.array(
  section('a task such as { id: first, agent: … }', {
    id: name(),
    title: text('a text of 1 to 200 characters on one line', /^[^\p{Cc}]{1,200}$/u).optional(),
    agent: agentNames(),
    patch: filePath().optional(),
    patches: z
      .array(filePath(), { error: 'a list of at least one path' })
      .min(1)
      .max(MAX_PATCHES, { error: `at most ${MAX_PATCHES} paths` })
      .optional(),
    dependsOn: z
      .array(name(), { error: 'a list of task ids' })
      .max(MAX_DEPENDENCIES, { error: `at most ${MAX_DEPENDENCIES} task ids` })
      .optional(),
    accept: z
      .array(acceptCommand, { error: 'a list of commands' })
      .max(MAX_ACCEPT_COMMANDS, { error: `at most ${MAX_ACCEPT_COMMANDS} commands` })
      .optional(),
    priority: oneOf('low', 'normal', 'high', 'urgent', 'critical').optional(),
    input: z.unknown().optional(),
    limits: limits.optional(),
    qa: qaOfTask.optional(),
    staged: flag().optional(),
  }),
  { error: 'a list of tasks, or the path of a file that holds one' },
);

/**
 * Checks data against a schema.
 * @param base path of `value` in the source
 * @param problems where everything that is wrong is added
 * @returns what the schema made of it; undefined when anything is wrong
 */
export function checkValue<T>(
  schema: z.ZodType<T>,
  value: unknown,
  source: ConfigSource,
  base: readonly PropertyKey[],
  problems: ConfigProblem[],
): T | undefined {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  for (const issue of result.error.issues) {
    const keys = [...base, ...issue.path];
    if (issue.code === 'unrecognized_keys') {
      const known = issue.message.split(',');
      for (const key of issue.keys) {
        problems.push(
          source.keyProblem(
            [...keys, key],
            () => `unknown key${suggestion(key, known, 'the known keys are')}`,
          ),
        );
      }
      continue;
    }
    const got = valueAt(value, issue.path);
    if (issue.code === 'invalid_key') {
      problems.push(source.keyProblem(keys, `expected ${issue.message}`));
    } else if (got.missing) {
      problems.push(source.problem(keys, `is missing; expected ${issue.message}`));
    } else {
      problems.push(
        source.problem(keys, () => {
          return `expected ${issue.message}, got ${describeGot(keys, got.value)}${hintOf(issue, got.value)}`;
        }),
      );
    }
  }
  return undefined;
}

function hintOf(issue: z.core.$ZodIssue, value: unknown): string {
  if (issue.code === 'custom') return String(issue.params?.['hint'] ?? '');
  if (typeof value !== 'string') return '';
  if (issue.code === 'invalid_value' || issue.code === 'invalid_union') {
    const values =
      issue.code === 'invalid_value' ? issue.values : (issue as { options?: unknown }).options;
    const words = Array.isArray(values) ? values.map(String) : [];
    // The expectation has named them all: only a likely one is worth another word.
    if (words.includes(value)) return '; take away the quotes';
    const near = nearest(value, words);
    return near === undefined ? '' : `; did you mean ${near}?`;
  }
  if (issue.code === 'invalid_type' && issue.expected === 'boolean') {
    const yes = /^(?:yes|on|y)$/i.test(value);
    return yes || /^(?:no|off|n)$/i.test(value) ? `; write ${yes}` : '';
  }
  return '';
}

/** People write `environment: [TOKEN=secret]`, or a key where its variable belongs: the name is shown, never the rest. */
function describeGot(keys: readonly PropertyKey[], value: unknown): string {
  const isVariable =
    keys[0] === 'environment' ||
    keys[1] === 'keyVariable' ||
    (keys[0] === 'agents' && keys[2] === 'environment');
  if (!isVariable || typeof value !== 'string') return describeValue(value);
  const [name = '', ...rest] = value.split('=');
  return rest.length > 0 && /^\w+$/.test(name)
    ? `a value as well; write only ${shorten(name, 40)} and set it where troupe is started`
    : `a text of ${value.length} characters that is none`;
}

function valueAt(
  value: unknown,
  keys: readonly PropertyKey[],
): { readonly missing: boolean; readonly value: unknown } {
  let current = value;
  for (const key of keys) {
    if (typeof current !== 'object' || current === null || !Object.hasOwn(current, key)) {
      return { missing: true, value: undefined };
    }
    current = (current as Record<PropertyKey, unknown>)[key];
  }
  return { missing: false, value: current };
}
