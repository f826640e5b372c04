// Where the map is looked at from, the names on it, and which point is where.
const canvas = $("map"), pen = canvas.getContext("2d"), side = $("side");
const V = { width: 0, height: 0, scale: 1, left: 0, top: 0 };
let points, picked = -1, hovered = -1, shown = -1, moved = false, path = null;
const phone = () => innerWidth <= 640;
const edge = () => phone() ? 0 : 306;
const sx = x => x * V.scale + V.left, sy = y => y * V.scale + V.top;
const radius = () => {
  const base = Math.max(.7, Math.min(2.6, 260 / Math.sqrt(N)));
  return Math.min(7, base * Math.pow(Math.max(1, V.scale * FULL / 900), .45));
};

function fit(x0, y0, x1, y1) {
  const from = phone() ? 12 : 316, room = V.width - from - 30, above = phone() ? 110 : 0;
  V.scale = Math.min(room / Math.max(x1 - x0, 1), (V.height - above - 60) / Math.max(y1 - y0, 1));
  V.scale = Math.min(V.scale, 1.2);
  V.left = from + room / 2 - (x0 + x1) / 2 * V.scale;
  V.top = above / 2 + V.height / 2 - (y0 + y1) / 2 * V.scale;
  draw();
}
const all = () => { moved = false; fit(0, 0, FULL, FULL); };
function zoom(factor, px, py) {
  const next = Math.max(V.width / FULL / 8, Math.min(3, V.scale * factor));
  V.left = px - (px - V.left) * next / V.scale; V.top = py - (py - V.top) * next / V.scale;
  V.scale = next;
  move();
}
function pan(dx, dy) { V.left += dx; V.top += dy; move(); }

// --- frames -----------------------------------------------------------------------------------
// While the map moves, a frame draws as many points as fit into its time; at rest the others
// follow, frame by frame.
let asked = false, fresh = false, stale = false, movedAt = -1e9, frameAt = 0, wasMoving = false;
function move() { moved = true; movedAt = performance.now(); draw(); }
function draw(pointsToo = true) { fresh ||= pointsToo; stale = true; ask(); }
function ask() { if (!asked) { asked = true; requestAnimationFrame(frame); } }
function frame(now) {
  asked = false;
  const moving = now - movedAt < 400;
  if (fresh) {
    if (moving && wasMoving) points.pace(now - frameAt);
    points.paint(V, radius());
  } else if (!moving) points.more();
  if (stale) names();
  fresh = stale = false; frameAt = now; wasMoving = moving;
  if (moving || points.gl && points.done < 1) ask();
}

// --- names ------------------------------------------------------------------------------------
// Seen as a whole, the map names its themes; from nearer its topics, then its clusters.
function level(groups, key) {  // the middle of a group's largest cluster, so on points
  return groups.map(group => {
    const own = D.clusters.filter(c => c[key] === group.id);
    const at = own[0] ?? { x: 0, y: 0 };
    return { text: group.name.split(", ").slice(0, 3).join(", "), theme: at.theme ?? 0,
      size: own.reduce((sum, c) => sum + c.size, 0), x: at.x, y: at.y, clusters: own.length };
  }).sort((a, b) => b.size - a.size);
}
const themeNames = level(D.themes, "theme");
const topicNames = level(D.topics, "topic").filter(topic => topic.clusters > 1);
const MOST_NAMES = 60, widths = new Map();
function measured(text, font) {
  const key = font + text;
  if (!widths.has(key)) { pen.font = font; widths.set(key, pen.measureText(text).width); }
  return widths.get(key);
}
function write(text, x, y, font, size, fill, taken) {
  const h = size / 2 + 3, w = measured(text, font) / 2 + 4;
  x = Math.max((phone() ? 4 : edge()) + w, Math.min(V.width - w - 4, x));
  if (phone() && y < 110) return;
  if (taken.some(t => Math.abs(t[0] - x) < t[2] + w && Math.abs(t[1] - y) < t[3] + h)) return;
  taken.push([x, y, w, h]);
  pen.font = font;
  pen.strokeStyle = dark ? "#16171acc" : "#fbfaf8dd"; pen.lineWidth = 4;
  pen.strokeText(text, x, y); pen.lineWidth = 1;
  pen.fillStyle = fill; pen.fillText(text, x, y);
}
function group(names, weight, up, taken) {
  for (const name of names) {
    if (taken.length >= MOST_NAMES) return;
    const x = sx(name.x), y = sy(name.y) - up;
    if (x < 0 || y < 0 || x > V.width || y > V.height) continue;
    const size = Math.round(Math.max(13, Math.min(19, 9 + Math.log2(name.size + 1))) - (phone() ? 2 : 0));
    write(name.text, x, y, `${weight} ${size}px system-ui, sans-serif`, size, ink(name.theme), taken);
  }
}
function names() {
  const ratio = devicePixelRatio || 1, taken = [];
  const near = V.scale * FULL / Math.min(V.width, V.height);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, V.width, V.height);
  pen.textAlign = "center"; pen.textBaseline = "middle"; pen.lineJoin = "round";
  ring(hovered); ring(shown);
  if (picked < 0 && near < 1.6) group(themeNames, 700, 16, taken);
  if (picked < 0 && near < 5) group(topicNames, 600, 8, taken);
  for (let k = 0; k < D.clusters.length && taken.length < MOST_NAMES; k++) {
    const c = D.clusters[k], x = sx(c.x), y = sy(c.y);
    if (x < 0 || y < 0 || x > V.width || y > V.height || (picked >= 0 && k !== picked)) continue;
    if (!phone() && x < edge()) continue;
    const size = Math.round(Math.max(11, Math.min(15, 8 + Math.log2(c.size))));
    const text = c.born ? `✦ ${c.short}` : c.short;
    write(text, x, y, `500 ${size}px system-ui, sans-serif`, size,
      c.born ? (dark ? "#ffb46b" : "#a33b00") : dark ? "#f4f1ec" : "#1c1b1a", taken);
  }
  if (path) outline();
}
function ring(i) {
  if (i < 0) return;
  pen.strokeStyle = dark ? "#fff" : "#000"; pen.lineWidth = 2;
  pen.beginPath(); pen.arc(sx(X[i]), sy(Y[i]), radius() + 3, 0, 7); pen.stroke(); pen.lineWidth = 1;
}
function outline() {
  pen.beginPath();
  path.forEach(([x, y], at) => at ? pen.lineTo(x, y) : pen.moveTo(x, y));
  pen.closePath();
  pen.fillStyle = "#0072b222"; pen.fill();
  pen.strokeStyle = dark ? "#fff" : "#000"; pen.setLineDash([6, 4]); pen.stroke(); pen.setLineDash([]);
}

// --- which point is where ---------------------------------------------------------------------
const CELLS = 256, cellOf = v => Math.max(0, Math.min(CELLS - 1, Math.floor(v / FULL * CELLS)));
let starts, members;
function index() {  // rows by cell of a grid
  starts = new Uint32Array(CELLS * CELLS + 1); members = new Uint32Array(N);
  const cells = new Uint32Array(N);
  for (let i = 0; i < N; i++) { cells[i] = cellOf(Y[i]) * CELLS + cellOf(X[i]); starts[cells[i] + 1]++; }
  for (let c = 0; c < CELLS * CELLS; c++) starts[c + 1] += starts[c];
  const next = starts.slice();
  for (let i = 0; i < N; i++) members[next[cells[i]]++] = i;
}
function nearest(px, py, reach = 12) {
  let best = -1, least = reach * reach;
  const x = (px - V.left) / V.scale, y = (py - V.top) / V.scale, r = reach / V.scale;
  for (let row = cellOf(y - r); row <= cellOf(y + r); row++) {
    const from = starts[row * CELLS + cellOf(x - r)], to = starts[row * CELLS + cellOf(x + r) + 1];
    for (let at = from; at < to; at++) {
      const i = members[at], dx = sx(X[i]) - px, dy = sy(Y[i]) - py;
      const d = dx * dx + dy * dy + (C[i] < 0 ? 12 : 0);
      if (d < least && points.state[i] === PLAIN) { least = d; best = i; }
    }
  }
  return best;
}
/** The rows that are seen inside a path of screen places. */
function inside(corners) {
  const mask = new OffscreenCanvas(V.width, V.height).getContext("2d");
  mask.beginPath();
  corners.forEach(([x, y], at) => at ? mask.lineTo(x, y) : mask.moveTo(x, y));
  mask.fill("evenodd");
  const within = mask.getImageData(0, 0, V.width, V.height).data, found = [];
  for (let i = 0; i < N; i++) {
    const x = Math.floor(sx(X[i])), y = Math.floor(sy(Y[i]));
    if (x < 0 || y < 0 || x >= V.width || y >= V.height || points.state[i] === HIDDEN) continue;
    if (within[4 * (y * V.width + x) + 3] > 127) found.push(i);
  }
  return found;
}
