// What the page carries: columns of the points, blocks of their posts, clusters and their levels.
const D = JSON.parse(document.getElementById("data").textContent);
const N = D.count, FULL = 65535, NONE = -2147483648;
const $ = id => document.getElementById(id);
const many = number => number.toLocaleString("en");

function bytes(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text), all = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) all[i] = raw.charCodeAt(i);
  return all;
}
const inflate = text => new Response(
  new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("deflate")));
async function column(text) {  // four planes, one for each byte of the 32-bit integers
  const planes = new Uint8Array(await inflate(text).arrayBuffer()), all = new Int32Array(N);
  for (let i = 0; i < N; i++)
    all[i] = planes[i] | planes[N + i] << 8 | planes[2 * N + i] << 16 | planes[3 * N + i] << 24;
  return all;
}
let X, Y, C, SCORE, DAY;

// --- posts: text and link of a point, read block by block ------------------------------------
const blocks = new Map();
let beside = null;
function besideBlocks() {  // a script, since a page from disk may load nothing else
  beside ??= new Promise((found, failed) => {
    window.mapPosts = (stamp, held) => stamp === D.beside.stamp ? found(held)
      : failed(Error(`${D.beside.file} was written by another night: load this page again.`));
    const script = document.createElement("script");
    script.setAttribute("src", D.beside.file);
    script.onerror = () => failed(
      Error(`${D.beside.file} is not beside this page, so the posts cannot be shown.`));
    document.head.append(script);
  });
  return beside;
}
function block(number) {
  if (!blocks.has(number)) blocks.set(number, (async () => {
    const held = D.blocks ?? await besideBlocks();
    return inflate(held[number]).json();
  })());
  return blocks.get(number);
}
async function post(i) {
  const [text, link] = (await block(Math.floor(i / D.block_rows)))[i % D.block_rows];
  return { text, link };
}
function notice(text) {
  $("notice").textContent = text;
  $("notice").style.display = text ? "block" : "none";
}
const excerpt = text => {
  const line = text.replace(/\s+/g, " ").trim();
  if (line.length <= 160) return line || "(no text)";
  return line.slice(0, 160).replace(/\s\S*$/, "") + "…";
};
const dayOf = day => {
  const date = new Date(day * 864e5);
  return day === NONE || isNaN(date) ? "" : date.toISOString().slice(0, 10);
};
const home = i => C[i] < 0 ? "no cluster" : D.clusters[C[i]].name;

// --- colours ----------------------------------------------------------------------------------
let dark = matchMedia("(prefers-color-scheme: dark)").matches;
const rgb = hex => [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16));
const tint = (theme, rank) => {  // clusters of a theme: the same colour, darker or lighter
  const to = [0, 255][rank % 2], by = rank ? .08 * (1 + rank % 4) : 0;
  return rgb(D.palette[theme % D.palette.length]).map(v => Math.round(v + (to - v) * by));
};
const shape = theme => Math.floor(theme / D.palette.length) % 3;
const tone = k => k < 0 ? (dark ? [150, 150, 150] : [120, 118, 115])
  : tint(D.clusters[k].theme, D.clusters[k].rank);
const ink = theme => {  // of letters: dark enough on light paper, light enough on dark
  const to = dark ? 255 : 0;
  return `rgb(${tint(theme, 0).map(v => Math.round(v + (to - v) * .35))})`;
};
