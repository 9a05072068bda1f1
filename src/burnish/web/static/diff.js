// What changed between two texts, word by word: the longest common subsequence (Hunt and McIlroy,
// "An algorithm for differential file comparison", 1976), after what both begin and end with.

const MAX_CELLS = 1_000_000; // 1,000 changed words on each side; above, one change in one piece.

const wordsOf = (text) => text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];

// A list of { kind: "same" | "del" | "ins", text }.
export function changes(before, after) {
  const a = wordsOf(before);
  const b = wordsOf(after);
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a.at(-1 - end) === b.at(-1 - end)) end += 1;
  const parts = [
    ...a.slice(0, start).map((text) => ({ kind: "same", text })),
    ...middle(a.slice(start, a.length - end), b.slice(start, b.length - end)),
    ...a.slice(a.length - end).map((text) => ({ kind: "same", text })),
  ];
  return joined(parts);
}

function middle(a, b) {
  if (a.length * b.length > MAX_CELLS) {
    return [{ kind: "del", text: a.join("") }, { kind: "ins", text: b.join("") }];
  }
  const width = b.length + 1;
  const common = new Uint32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      common[i * width + j] = a[i] === b[j]
        ? common[(i + 1) * width + j + 1] + 1
        : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
    }
  }
  const parts = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      parts.push({ kind: "same", text: a[i] });
      i += 1;
      j += 1;
    } else if (j === b.length || (i < a.length && common[(i + 1) * width + j] >= common[i * width + j + 1])) {
      parts.push({ kind: "del", text: a[i] });
      i += 1;
    } else {
      parts.push({ kind: "ins", text: b[j] });
      j += 1;
    }
  }
  return parts;
}

function joined(parts) {
  const whole = [];
  for (const { kind, text } of parts) {
    if (!text) continue;
    if (whole.at(-1)?.kind === kind) whole.at(-1).text += text;
    else whole.push({ kind, text });
  }
  return whole;
}

// The changes as elements: <del> and <ins> are read out as such.
export function changeElements(before, after) {
  return changes(before, after).map(({ kind, text }) => {
    if (kind === "same") return document.createTextNode(text);
    const element = document.createElement(kind);
    element.textContent = text;
    return element;
  });
}
