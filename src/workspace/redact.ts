import { redactText } from '../protocol/redact.ts';

/** Takes secrets out of a text. */
export type Redact = (text: string) => string;

/** Names of variables that carry secrets as a rule. */
export const SECRET_NAME = /KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH|COOKIE|SESSION|PRIVATE/i;

/** Shorter values are words that stand in any text. */
const MIN_SECRET_CHARACTERS = 6;

/**
 * @param environment what commands are given: values of variables that are named like secrets are taken out, each
 *   replaced by `[NAME]`; besides those, whatever `redactText` finds
 */
export function redactorFor(environment: Readonly<Record<string, string>>): Redact {
  const secrets = Object.entries(environment)
    .filter(([name, value]) => SECRET_NAME.test(name) && value.length >= MIN_SECRET_CHARACTERS)
    // One may be part of another.
    .sort(([, a], [, b]) => b.length - a.length);
  return (text) => {
    let clean = text;
    for (const [name, value] of secrets) clean = clean.replaceAll(value, `[${name}]`);
    return redactText(clean);
  };
}
