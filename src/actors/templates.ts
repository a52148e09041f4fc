import { didYouMean } from '../machines/policies/did-you-mean.ts';
import { fillIn, placeholdersIn } from '../machines/policies/placeholders.ts';
import { readSettings } from '../machines/policies/settings.ts';
import { parseId } from '../protocol/address.ts';
import { ConfigurationError, ValidationError } from '../protocol/errors.ts';
import { findNonJson, type JsonValue, typeWord } from '../protocol/json.ts';
import { BUILT_IN_TEMPLATES } from './built-in-templates.ts';
import type { Registry } from './registry.ts';
import type { WorkflowSpec } from './workflow.ts';

/** One parameter of a template. */
export interface TemplateParameter {
  /** What may be given for it; `json`: anything. Default `text`. */
  readonly type?: 'text' | 'number' | 'boolean' | 'json';
  /** For whoever chooses the template. */
  readonly description?: string;
  /** Without one it must be given. A text may name parameters before it: `{{agent}}`. */
  readonly default?: JsonValue;
}

/**
 * What a kind of work is made of. In its texts `{{name}}` stands for the parameter of that name; a text that is nothing
 * else becomes the parameter itself, be it a number or an object.
 */
export interface WorkflowTemplate {
  readonly description?: string;
  /** By name, which is letters and digits. Default: none. */
  readonly params?: Readonly<Record<string, TemplateParameter>>;
  /** Data, or a function that makes it: pure, for a run that is started again must be the same run. */
  readonly workflow: WorkflowSpec | ((params: Readonly<Record<string, JsonValue>>) => WorkflowSpec);
}

/** A template by its name, and what this run is to be. What is given here counts over what the template says. */
export interface TemplateCall
  extends Partial<
    Pick<
      WorkflowSpec,
      'id' | 'title' | 'limits' | 'concurrency' | 'budgetMs' | 'onBudget' | 'agent' | 'gatekeeper'
    >
  > {
  readonly template: string;
  readonly params?: Readonly<Record<string, JsonValue>>;
}

const CALL_KEYS: Record<keyof TemplateCall, true> = {
  template: true,
  params: true,
  id: true,
  title: true,
  limits: true,
  concurrency: true,
  budgetMs: true,
  onBudget: true,
  agent: true,
  gatekeeper: true,
};

// Written as objects so that the compiler misses a key that was forgotten.
const TEMPLATE_KEYS: Record<keyof WorkflowTemplate, true> = {
  description: true,
  params: true,
  workflow: true,
};
const PARAMETER_KEYS: Record<keyof TemplateParameter, true> = {
  type: true,
  description: true,
  default: true,
};

/** Enters the templates that are always there. */
export function addBuiltIns(templates: Registry<WorkflowTemplate>): void {
  for (const [name, template] of Object.entries(BUILT_IN_TEMPLATES)) {
    templates.add(name, checkTemplate(name, template));
  }
}

/**
 * A template as it is kept: a copy, so that nobody changes it afterwards.
 * @throws {ConfigurationError} a parameter or a placeholder that cannot work
 */
export function checkTemplate(name: string, template: WorkflowTemplate): WorkflowTemplate {
  const where = `template "${name}"`;
  if (typeof template !== 'object' || template === null) {
    throw new ConfigurationError(
      `Expected ${where} to be an object with a workflow, got ${typeWord(template)}.`,
    );
  }
  readSettings(template, Object.keys(TEMPLATE_KEYS), where);
  const { description, params = {}, workflow } = template;
  const names = Object.keys(params);
  readSettings(params, names, `parameters of ${where}`);
  const known: string[] = [];
  for (const [param, parameter] of Object.entries(params)) {
    readSettings(
      parameter ?? null,
      Object.keys(PARAMETER_KEYS),
      `parameter "${param}" of ${where}`,
    );
    const { type = 'text', default: fallback } = parameter;
    if (!/^[A-Za-z][A-Za-z0-9]{0,63}$/.test(param)) {
      throw new ConfigurationError(
        `Expected the parameters of ${where} to be called by letters and digits, beginning with a letter, got ${JSON.stringify(param)}.`,
      );
    }
    if (!TYPES.includes(type)) {
      throw new ConfigurationError(
        `Expected the type of parameter "${param}" of ${where} to be one of ${TYPES.join(', ')}, got ${JSON.stringify(type)}.`,
      );
    }
    if (fallback !== undefined) {
      const at = `the default of parameter "${param}" of ${where}`;
      checkDefault(fallback, type, at);
      requireKnownNames(fallback, known, at);
    }
    known.push(param);
  }
  if (typeof workflow !== 'function') {
    const problem = findNonJson(workflow, 'workflow');
    if (problem !== undefined) {
      throw new ConfigurationError(
        `Expected the workflow of ${where} to be plain JSON, but ${problem.path} is ${problem.found}.`,
      );
    }
    requireKnownNames(workflow as unknown as JsonValue, names, where);
  }
  const kept = fillIn(params as unknown as JsonValue, {}) as WorkflowTemplate['params'] & object;
  return Object.freeze({
    ...(description === undefined ? {} : { description }),
    params: deepFreeze(kept),
    workflow:
      typeof workflow === 'function'
        ? workflow
        : deepFreeze(fillIn(workflow as unknown as JsonValue, {}) as unknown as WorkflowSpec),
  });
}

const TYPES: readonly string[] = ['text', 'number', 'boolean', 'json'];

/** A text may be empty, anything may be null (nothing), and what other parameters make of it is seen when they are there. */
function checkDefault(fallback: unknown, type: keyof typeof TYPE_WORDS, where: string): void {
  const problem = findNonJson(fallback, 'default');
  if (problem !== undefined) {
    throw new ConfigurationError(
      `Expected ${where} to be plain JSON, but ${problem.path} is ${problem.found}.`,
    );
  }
  const value = fallback as JsonValue;
  if (value === null || placeholdersIn(value).length > 0) return;
  if (type === 'text' ? typeof value === 'string' : isOfType(value, type)) return;
  throw new ConfigurationError(
    `Expected ${where} to be ${TYPE_WORDS[type]}, got ${JSON.stringify(value)}.`,
  );
}

function requireKnownNames(value: JsonValue, names: readonly string[], where: string): void {
  for (const name of placeholdersIn(value)) {
    if (names.includes(name)) continue;
    throw new ConfigurationError(
      `Expected the placeholders in ${where} to be parameters of it, got {{${name}}}.${didYouMean(name, names)} Known: ${names.join(', ') || 'none'}.`,
    );
  }
}

/** @throws {ValidationError} there is no such template; says what was probably meant */
export function requireTemplate(
  templates: Registry<WorkflowTemplate>,
  name: unknown,
): WorkflowTemplate {
  const template = typeof name === 'string' ? templates.get(name) : undefined;
  if (template !== undefined) return template;
  const names = templates.names();
  throw new ValidationError(
    `Expected the name of a template, got ${JSON.stringify(name) ?? 'nothing'}.${typeof name === 'string' ? didYouMean(name, names) : ''} Known: ${names.join(', ')}.`,
  );
}

/**
 * What a call makes of a template: a workflow of its own, which shares nothing with the template or with any other.
 * @throws {ValidationError} a parameter that is not one, is missing or of another type
 */
export function instantiate(template: WorkflowTemplate, call: TemplateCall): WorkflowSpec {
  const where = `template "${call.template}"`;
  for (const key of Object.keys(call)) {
    if (Object.hasOwn(CALL_KEYS, key)) continue;
    const known = Object.keys(CALL_KEYS);
    throw new ValidationError(
      `${where}: there is no setting ${JSON.stringify(key)}.${didYouMean(key, known)} Known settings: ${known.join(', ')}. What the work is about goes into params.`,
    );
  }
  const params = paramsOf(template, call, where);
  const { template: _template, params: _params, ...over } = call;
  const { workflow } = template;
  const made = typeof workflow === 'function' ? workflow({ ...params }) : workflow;
  const problem = findNonJson(made, 'workflow');
  if (problem !== undefined) {
    throw new ValidationError(
      `Expected what ${where} makes to be plain JSON, but ${problem.path} is ${problem.found}.`,
    );
  }
  const values = typeof workflow === 'function' ? {} : params;
  const spec = fillIn(made as unknown as JsonValue, values) as unknown as WorkflowSpec;
  return { ...spec, ...(fillIn(over as unknown as JsonValue, {}) as typeof over) };
}

function paramsOf(
  { params = {} }: WorkflowTemplate,
  { params: given = {} }: TemplateCall,
  where: string,
): Readonly<Record<string, JsonValue>> {
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw new ValidationError(
      `Expected params of ${where} to be an object such as { title: "…" }, got ${JSON.stringify(given)}.`,
    );
  }
  const names = Object.keys(params);
  for (const name of Object.keys(given)) {
    if (names.includes(name)) continue;
    throw new ValidationError(
      `${where} has no parameter ${JSON.stringify(name)}.${didYouMean(name, names)} Known: ${names.join(', ') || 'none'}.`,
    );
  }
  const values: Record<string, JsonValue> = {};
  for (const [name, { type = 'text', default: fallback, description }] of Object.entries(params)) {
    const value = given[name];
    if (value !== undefined) {
      if (!isOfType(value, type)) {
        throw new ValidationError(
          `Expected parameter "${name}" of ${where} to be ${TYPE_WORDS[type]}, got ${typeof value === 'number' ? value : JSON.stringify(value)}.`,
        );
      }
      values[name] = value;
      continue;
    }
    if (fallback === undefined) {
      throw new ValidationError(
        `Expected parameter "${name}" of ${where}${description === undefined ? '' : ` (${description})`}, got none.`,
      );
    }
    values[name] = fillIn(fallback, values);
  }
  return values;
}

const TYPE_WORDS = {
  text: 'a text with something in it',
  number: 'a number',
  boolean: 'true or false',
  json: 'plain JSON',
} as const;

function isOfType(value: JsonValue, type: keyof typeof TYPE_WORDS): boolean {
  switch (type) {
    case 'text':
      return typeof value === 'string' && value.trim() !== '';
    case 'number':
      return Number.isFinite(value);
    case 'boolean':
      return typeof value === 'boolean';
    case 'json':
      return findNonJson(value) === undefined;
  }
}

/** Ids of templates are names in files and on command lines. */
export const parseTemplateName = (name: unknown): string => parseId(name, 'the name of a template');

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const child of Object.values(value)) deepFreeze(child);
  }
  return value;
}
