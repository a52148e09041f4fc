import { commands } from './commands.js';
import { formatTable } from './table.js';

function help() {
  const rows = commands.map(({ usage, summary }) => [`  ${usage}`, summary]);
  return `Usage: textkit <command> [arguments] < text\n\n${formatTable(rows)}`;
}

/**
 * Runs one command.
 * @param {string[]} args the command's name and its arguments
 * @param {() => string} readInput called only when a command wants its input
 * @returns {{ code: number, out: string, err: string }} exit code 2: the command line makes no sense
 */
export function runCli([name, ...args], readInput) {
  if (name === undefined || name === '--help') return { code: 0, out: help(), err: '' };
  const command = commands.find((each) => each.name === name);
  if (command === undefined) {
    return { code: 2, out: '', err: `textkit: there is no command ${name}\n\n${help()}` };
  }
  try {
    return { code: 0, out: command.run(readInput(), args), err: '' };
  } catch (error) {
    return { code: 2, out: '', err: `textkit ${name}: ${error.message}\n` };
  }
}
