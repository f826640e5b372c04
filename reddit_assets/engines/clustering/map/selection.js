// What was drawn around: how much it is, what it is about, and the same as a file.
const SAMPLED = 2000;
const ORDINARY = new Set(D.stop_words);
const sampled = rows => {
  const step = Math.max(1, rows.length / SAMPLED), found = [];
  for (let at = 0; at < rows.length; at += step) found.push(rows[Math.floor(at)]);
  return found;
};
async function counted(rows) {  // in how many posts each word stands
  const found = new Map();
  for (const i of rows) {
    const words = (await post(i)).text.toLowerCase().replace(/https?:\S+/g, " ").match(/\p{L}{3,}/gu);
    for (const word of new Set(words)) if (!ORDINARY.has(word)) found.set(word, (found.get(word) ?? 0) + 1);
  }
  return found;
}
/** Words that stand in the selection more often than in the whole, by class-based TF-IDF. */
async function keywords(rows) {
  const own = sampled(rows), rest = sampled([...Array(N).keys()]);
  const mine = await counted(own), whole = await counted(rest);
  const weight = ([word, number]) => number / own.length * Math.log(1 + rest.length / (1 + (whole.get(word) ?? 0)));
  return [...mine].filter(([, number]) => number > 1 || own.length < 20)
    .sort((a, b) => weight(b) - weight(a)).slice(0, 12).map(([word]) => word);
}
async function select(rows) {
  chosen = rows; picked = -1;
  restate();
  $("card").style.display = "none"; $("chosen").style.display = "flex"; shown = -1;
  $("count").textContent = `${many(rows.length)} ${D.noun} selected`;
  $("export").disabled = !rows.length;
  const gist = $("gist");
  gist.textContent = "";
  const sizes = new Map();
  for (const i of rows) sizes.set(C[i], (sizes.get(C[i]) ?? 0) + 1);
  const words = say(gist, "p", rows.length ? "…" : "Nothing lies there.");
  for (const [k, size] of [...sizes].sort((a, b) => b[1] - a[1]).slice(0, 8))
    item(gist, k, k < 0 ? "no cluster" : D.clusters[k].name, many(size)).disabled = k < 0;
  gist.querySelectorAll(".item").forEach((row, at) => row.addEventListener("click", () => {
    const k = [...sizes].sort((a, b) => b[1] - a[1])[at][0];
    drop(); if (picked !== k) pick(k);
  }));
  if (!rows.length) return;
  try {
    const found = await keywords(rows);
    if (chosen !== rows) return;
    words.textContent = found.length ? `Keywords: ${found.join(", ")}` : "No word stands out.";
    await fillPosts(gist, rows, 30);
  } catch (error) { words.textContent = error.message; }
}
function drop() {
  chosen = null; $("chosen").style.display = "none";
  restate();
}
// A cell that begins like a formula would be run by a spreadsheet: it gets an apostrophe.
const cell = value => {
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value ?? "");
  return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
};
async function csv(rows) {
  const lines = ["cluster_id,cluster,theme,score,date,link,text"];
  for (const i of rows) {
    const { text, link } = await post(i), c = D.clusters[C[i]];
    const theme = c ? D.themes.find(one => one.id === c.theme)?.name : "";
    lines.push([c?.id ?? -1, c?.name, theme, SCORE[i] === NONE ? "" : SCORE[i], dayOf(DAY[i]), link, text]
      .map(cell).join(","));
  }
  return new Blob(["\ufeff", lines.join("\r\n"), "\r\n"], { type: "text/csv" });
}
async function save() {
  const button = $("export");
  button.disabled = true;
  try {
    const link = document.createElement("a");
    link.setAttribute("href", URL.createObjectURL(await csv(chosen)));
    link.download = `${D.name.replace(/[^\p{L}\p{N}_-]+/gu, "_")}-selection.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  } catch (error) { notice(error.message); }
  button.disabled = false;
}
