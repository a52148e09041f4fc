import type { JsonValue } from './json.ts';

/**
 * Takes secrets out of what people and files get to see: evidence of a verification, the audit stream. It knows them by
 * how they look (keys of the known services, tokens, private keys, passwords in URLs) and by what they are called.
 *
 * It is a net, not a proof: a password that looks like a word and stands in a sentence stays. What must not be seen
 * should not be sent.
 */

const REDACTED = '[redacted]';

/** What a secret is called, at the end of a name: `password`, `dbPassword`, `x-api-key`, `accessToken`. */
const SECRET_NAME =
  '(?:pass(?:word|wd|phrase)|secret|token|api[-_ ]?key|access[-_ ]?key(?:[-_ ]?id)?|private[-_ ]?key|authorization|cookie|credential)s?';

const IS_SECRET_NAME = new RegExp(`${SECRET_NAME}$`, 'i');

/**
 * What a secret looks like. The first group, if there is one, stays: it says what stood there.
 *
 * Nothing here may look through the same text again from each place where it could begin: whoever writes the text would
 * decide how long everything else stands still. Nor may it go on for megabytes: a search that has so much to take back throws.
 * So what has no end of its own has a longest length.
 */
const SECRETS: readonly RegExp[] = [
  /-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)/g,
  // OpenAI, Anthropic and whoever does as they do; Stripe.
  /\b(?:sk|rk|pk)[-_](?:[a-z0-9]{1,15}[-_]){0,12}[A-Za-z0-9]{16,100000}[A-Za-z0-9_-]{0,100000}/g,
  // GitHub, GitLab, npm, Slack, Google, AWS, Hugging Face.
  /\bgh[pousr]_[A-Za-z0-9]{20,100000}/g,
  /\bgithub_pat_[A-Za-z0-9_]{20,100000}/g,
  /\bglpat-[A-Za-z0-9_-]{16,100000}/g,
  /\bnpm_[A-Za-z0-9]{30,100000}/g,
  /\bxox[abeoprs]-[A-Za-z0-9-]{10,100000}/g,
  /\bAIza[A-Za-z0-9_-]{30,100000}/g,
  /\b(?:AKIA|ASIA)[A-Z0-9]{16}\b/g,
  /\bhf_[A-Za-z0-9]{30,100000}/g,
  // JSON web tokens.
  /\beyJ[A-Za-z0-9_-]{8,2048}\.[A-Za-z0-9_-]{8,100000}(?:\.[A-Za-z0-9_-]{0,100000})?/g,
  /\b((?:Bearer|Basic)\s+)[A-Za-z0-9._~+/-]{8,100000}=*/gi,
  // The password in a URL: https://ada:secret@host
  /(?<=[a-z0-9+.-])(:\/\/[^\s/:@]*:)[^\s/@]+(?=@)/gi,
  // Whatever is called a secret, up to the end of its value: password=…, "api_key": "…", TOKEN: …
  new RegExp(`(${SECRET_NAME}["']?\\s*[:=]\\s*)"(?:[^"\\\\\\n]|\\\\.){1,100000}"`, 'gi'),
  new RegExp(`(${SECRET_NAME}["']?\\s*[:=]\\s*)'[^'\\n]+'`, 'gi'),
  new RegExp(
    `(${SECRET_NAME}["']?\\s*[:=]\\s*)(?!["'\\s]|(?:Bearer|Basic)\\s)[^\\s"',;&)}\\]]{4,100000}\\]?`,
    'gi',
  ),
];

/** Cheap, and true for every text that one of the patterns fits. */
const SUSPECT =
  /PRIVATE KEY|[sr]k[-_]|pk[-_]|gh[pousr]_|github_pat_|glpat-|npm_|xox[abeoprs]-|AIza|AKIA|ASIA|hf_|eyJ|bearer|basic|:\/\/|pass(?:word|wd|phrase)|secret|token|key|authorization|cookie|credential/i;

/** The text with every secret in it replaced by `[redacted]`. To do it twice changes nothing more. */
export function redactText(text: string): string {
  if (!SUSPECT.test(text)) return text;
  let redacted = text;
  for (const secret of SECRETS) {
    redacted = redacted.replace(secret, (_whole, kept: unknown) =>
      typeof kept === 'string' ? `${kept}${REDACTED}` : REDACTED,
    );
  }
  return redacted;
}

/** The same for every text in a value. A text under the name of a secret goes as a whole, and so do lists of such. */
export function redactJson(value: JsonValue): JsonValue {
  return redact(value, false);
}

function redact(value: JsonValue, isSecret: boolean): JsonValue {
  if (typeof value === 'string') return isSecret && value !== '' ? REDACTED : redactText(value);
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map((item) => redact(item, isSecret));
  const entries = Object.entries(value).map(([key, item]) => [
    redactText(key),
    redact(item as JsonValue, IS_SECRET_NAME.test(key)),
  ]);
  return Object.fromEntries(entries) as JsonValue;
}
