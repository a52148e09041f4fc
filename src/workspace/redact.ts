/** Takes secrets out of a text. */
export type Redact = (text: string) => string;

/** Names of variables that carry secrets as a rule. */
export const SECRET_NAME = /KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH|COOKIE|SESSION|PRIVATE/i;

/** Shorter values are words that stand in any text. */
const MIN_SECRET_CHARACTERS = 6;

/** What is a secret wherever it stands: keys of well-known services, private keys, passwords in addresses. */
const SHAPES: readonly (readonly [shape: RegExp, by: string])[] = [
  [/-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)/g, '***'],
  [
    /\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|npm_[A-Za-z0-9]{30,})\b/g,
    '***',
  ],
  [/\bsk-[A-Za-z0-9_-]{20,}/g, '***'],
  [/\b(?:xox[abprs]-[\w-]{10,}|AKIA[0-9A-Z]{16}|AIza[\w-]{30,})\b/g, '***'],
  [/\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}/g, '***'],
  [/(\b[Bb]earer +)[\w.~+/-]{16,}=*/g, '$1***'],
  [/(\b[a-z][a-z0-9+.-]*:\/\/[^/\s:@]*:)[^/\s@]+(?=@)/g, '$1***'],
];

/**
 * @param environment what commands are given: values of variables that are named like secrets are taken out, each
 *   replaced by `[NAME]`; besides those, whatever is shaped like a known kind of secret
 */
export function redactorFor(environment: Readonly<Record<string, string>>): Redact {
  const secrets = Object.entries(environment)
    .filter(([name, value]) => SECRET_NAME.test(name) && value.length >= MIN_SECRET_CHARACTERS)
    // One may be part of another.
    .sort(([, a], [, b]) => b.length - a.length);
  return (text) => {
    let clean = text;
    for (const [name, value] of secrets) clean = clean.replaceAll(value, `[${name}]`);
    for (const [shape, by] of SHAPES) clean = clean.replace(shape, by);
    return clean;
  };
}
