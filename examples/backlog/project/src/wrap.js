import { expectInteger, expectString } from './expect.js';

/**
 * Wraps each paragraph of a text to a width. Blank lines separate paragraphs and are kept.
 * A word that is longer than a line stands alone on it and sticks out.
 * @param {string} text
 * @param {{ width?: number, indent?: string }} [options] width in characters, indent included; default 80
 */
export function wrap(text, { width = 80, indent = '' } = {}) {
  expectString(text, 'text');
  expectInteger(width, 'width', 1);
  return text
    .split(/\n{2,}/)
    .map((paragraph) => wrapParagraph(paragraph, width, indent))
    .join('\n\n');
}

function wrapParagraph(paragraph, width, indent) {
  const room = Math.max(1, width - indent.length);
  const lines = [];
  let line = '';
  for (const word of paragraph.split(/\s+/).filter(Boolean)) {
    if (line === '') {
      line = word;
    } else if (line.length + 1 + word.length <= room) {
      line += ` ${word}`;
    } else {
      lines.push(line);
      line = word;
    }
  }
  if (line !== '') lines.push(line);
  return lines.map((each) => indent + each).join('\n');
}
