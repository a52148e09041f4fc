// Reviews a change by rules that anybody can check: what was left behind, switched off, given away or grown too large.
import type { Engine, VerifyFunction } from '../../src/index.ts';
import { redactText } from '../../src/index.ts';

export type Finding = {
  readonly file: string;
  readonly line: number;
  readonly rule: Rule;
  readonly severity: 'error' | 'warning';
  readonly message: string;
};

export type Rule =
  | 'debug-output'
  | 'disabled-test'
  | 'secret'
  | 'conflict-marker'
  | 'todo-without-issue'
  | 'large-function'
  | 'empty-catch';

interface LineRule {
  readonly rule: Rule;
  readonly severity: Finding['severity'];
  readonly message: string;
  /** In these files only, or in all but these. */
  readonly only?: RegExp;
  readonly except?: RegExp;
  readonly finds: (line: string) => boolean;
}

const CODE = /\.(?:[cm]?[jt]s|[jt]sx|py|rb|go|rs|java)$/;
const TESTS = /(?:^|\/)(?:tests?|__tests__)\/|\.(?:test|spec)\.[^/]+$|_test\.\w+$/;
const PROGRAMS = /(?:^|\/)(?:bin|scripts)\/|(?:^|\/)cli\.[^/]+$/;

const RULES: readonly LineRule[] = [
  {
    rule: 'conflict-marker',
    severity: 'error',
    message: 'A conflict was not resolved.',
    finds: (line) => /^(?:<{7}|>{7}|\|{7})(?: |$)|^={7}$/.test(line),
  },
  {
    rule: 'secret',
    severity: 'error',
    message: 'This looks like a secret. Revoke it: whoever can read the change has it.',
    // What is read from somewhere is no secret; only a text that stands there is.
    finds: (line) =>
      redactText(line) !== line &&
      !/process\.env|os\.environ|\$\{|\[redacted\]|example|placeholder|<[a-z-]+>/i.test(line) &&
      /['"`][^'"`\s]{8,}['"`]|[\w-]{20,}|PRIVATE KEY/.test(line),
  },
  {
    rule: 'debug-output',
    severity: 'error',
    message: 'Output for debugging was left behind.',
    only: CODE,
    except: PROGRAMS,
    finds: (line) =>
      /^\s*(?:debugger\b|breakpoint\(\)|import pdb|(?:console\.(?:log|debug|trace|dir)|print|dbg!|System\.out\.print(?:ln)?)\()/.test(
        line,
      ),
  },
  {
    rule: 'disabled-test',
    severity: 'error',
    message: 'A test is switched off, or all others are.',
    only: TESTS,
    finds: (line) =>
      /\b(?:test|it|describe|suite)\.(?:skip|only|todo)\b|\b(?:xit|xdescribe|fit|fdescribe)\(|@(?:pytest\.mark\.skip|Disabled|Ignore)\b|\{ *(?:skip|only): *true/.test(
        line,
      ),
  },
  {
    rule: 'todo-without-issue',
    severity: 'warning',
    message: 'Nobody will find this again: name the issue, as in TODO(#12).',
    finds: (line) =>
      /(?:\/\/|#|\/?\*|--|<!--)\s*(?:TODO|FIXME|XXX|HACK)\b(?!.*(?:#\d+|[A-Z]{2,}-\d+|https?:\/\/))/.test(
        line,
      ),
  },
  {
    rule: 'empty-catch',
    severity: 'error',
    message: 'An error disappears here. Handle it, or say why it may.',
    only: CODE,
    finds: (line) =>
      /\bcatch\b\s*(?:\([^)]*\))?\s*\{\s*\}|\.catch\(\s*\(\w*\)\s*=>\s*(?:\{\s*\}|undefined|null)\s*\)|^\s*except.*:\s*pass\b/.test(
        line,
      ),
  },
];

/** A function with more lines than that is a chapter. */
const LARGE_FUNCTION = 60;
const FUNCTION =
  /^\s*(?:export\s+)?(?:default\s+)?(?:async\s+)?(?:function\b\s*\*?\s*(?<named>\w*)|(?:const|let)\s+(?<arrow>\w+)\s*=\s*(?:async\s*)?(?:\([^)]*\)|\w+)\s*=>\s*\{|(?<method>\w+)\([^)]*\)\s*\{)/;

interface Added {
  readonly file: string;
  readonly line: number;
  readonly text: string;
}

/** What is wrong with the lines that a unified diff adds, in the order of the diff. */
export function review(diff: string): Finding[] {
  const added = addedLines(diff);
  const findings = added.flatMap(({ file, line, text }) =>
    RULES.filter(
      ({ only, except, finds }) =>
        (only?.test(file) ?? true) && !(except?.test(file) ?? false) && finds(text),
    ).map(({ rule, severity, message }): Finding => ({ file, line, rule, severity, message })),
  );
  return [...findings, ...largeFunctions(added)].sort((a, b) =>
    a.file < b.file ? -1 : a.file > b.file ? 1 : a.line - b.line,
  );
}

/** As an agent: `input: { diff }`. */
export const hound: Engine = ({ task }) => {
  const { diff } = task.input as { readonly diff: string };
  return { findings: review(diff) };
};

/** As a gatekeeper: what is handed in has a `diff`; warnings do not keep it from being accepted. */
export const houndGatekeeper: VerifyFunction = ({ submission }) => {
  const { diff } = (submission.result ?? {}) as { readonly diff?: unknown };
  if (typeof diff !== 'string' || addedLines(diff).length === 0) {
    return { accepted: false, reason: 'There is no change to review.' };
  }
  const findings = review(diff);
  const errors = findings.filter(({ severity }) => severity === 'error');
  const evidence = [{ name: 'review', lines: addedLines(diff).length, findings }];
  if (errors.length === 0) return { accepted: true, evidence };
  return {
    accepted: false,
    reason: `The review found ${errors.length} problem${errors.length === 1 ? '' : 's'}.`,
    feedback: errors.map(({ file, line, rule, message }) => `${file}:${line}: ${rule}: ${message}`),
    evidence,
  };
};

/** The lines that a diff adds, with their numbers in the new file. */
function addedLines(diff: string): Added[] {
  const found: Added[] = [];
  let file = '';
  let line = 0;
  /** Of the hunk: lines of the new and of the old file that are still to come. */
  let left = { added: 0, removed: 0 };
  for (const text of diff.split('\n')) {
    if (left.added <= 0 && left.removed <= 0) {
      const [, name] = /^\+\+\+ (?:b\/)?(.*?)(?:\t.*)?$/.exec(text) ?? [];
      if (name !== undefined) file = name;
      const hunk = /^@@ -\d+(?:,(\d+))? \+(\d+)(?:,(\d+))? @@/.exec(text);
      if (hunk !== null) {
        line = Number(hunk[2]);
        left = { added: Number(hunk[3] ?? 1), removed: Number(hunk[1] ?? 1) };
      }
      continue;
    }
    if (text.startsWith('+')) {
      found.push({ file, line, text: text.slice(1) });
      line++;
      left.added--;
    } else if (text.startsWith('-')) left.removed--;
    else if (!text.startsWith('\\')) {
      line++;
      left.added--;
      left.removed--;
    }
  }
  return found;
}

/** Functions that are added as a whole, from their first line to the brace that closes them. */
function largeFunctions(added: readonly Added[]): Finding[] {
  const findings: Finding[] = [];
  for (const [at, first] of added.entries()) {
    const begins = CODE.test(first.file) ? FUNCTION.exec(first.text) : null;
    if (begins === null || /^\s*(?:if|for|while|switch|catch)\b/.test(first.text)) continue;
    let depth = 0;
    let hasOpened = false;
    for (let n = at; n < added.length; n++) {
      const { file, line, text } = added[n] as Added;
      if (file !== first.file || line !== first.line + (n - at)) break;
      for (const sign of text.replaceAll(/(['"`])(?:\\.|(?!\1).)*\1|\/\/.*$/g, '')) {
        if (sign === '{') depth++;
        if (sign === '}') depth--;
        hasOpened ||= sign === '{';
      }
      if (!hasOpened || depth > 0) continue;
      const lines = n - at + 1;
      if (lines > LARGE_FUNCTION) {
        const { named, arrow, method } = begins.groups ?? {};
        findings.push({
          file,
          line: first.line,
          rule: 'large-function',
          severity: 'warning',
          message: `${named || arrow || method || 'A function'} has ${lines} lines; more than ${LARGE_FUNCTION} are hard to follow.`,
        });
      }
      break;
    }
  }
  return findings;
}
