// The list at the side, search, filters, and the card of a post.
let hits = null, chosen = null, searching = 0;
const bounds = { day: null, score: null, noise: true, born: false };

function passes(i) {
  if (C[i] < 0 ? !bounds.noise || bounds.born : bounds.born && !D.clusters[C[i]].born) return false;
  const { day, score } = bounds;
  return (!day || DAY[i] >= day[0] && DAY[i] <= day[1]) && (!score || SCORE[i] >= score[0] && SCORE[i] <= score[1]);
}
const filtered = () => bounds.day || bounds.score || !bounds.noise || bounds.born;
let visible = 0;
function restate() {
  const state = new Uint8Array(N), out = chosen ?? hits;
  visible = 0;
  for (let i = 0; i < N; i++) if (passes(i)) {
    state[i] = out || picked >= 0 && C[i] !== picked ? FADED : PLAIN; visible++;
  }
  const strong = out ? out.filter(i => state[i]) : [];
  for (const i of strong) state[i] = PLAIN;
  points.show(state, strong);
  count(); draw();
}
function count(more = "") {
  const found = hits ? hits.filter(passes).length : filtered() ? visible : null;
  $("found").textContent = found === null ? "" : `${many(found)} of ${many(N)} ${D.noun}${more}`;
}

// --- search -----------------------------------------------------------------------------------
async function search(text) {
  const mine = ++searching, words = text.toLowerCase().split(/\s+/).filter(Boolean);
  hits = words.length ? [] : null;
  if (hits) chosen = null;
  side.classList.toggle("folded", phone() && !hits);
  const total = Math.ceil(N / D.block_rows);
  let told = performance.now();
  for (let b = 0; hits && b < total; b++) {
    let held;
    try { held = await block(b); } catch (error) { notice(error.message); break; }
    if (mine !== searching) return;
    held.forEach(([said], at) => {
      const lower = said.toLowerCase();
      if (words.every(word => lower.includes(word))) hits.push(b * D.block_rows + at);
    });
    if (performance.now() - told > 200) {
      told = performance.now(); count(`, ${Math.round(100 * b / total)} % searched`);
      await new Promise(next => setTimeout(next));
    }
  }
  restate(); await fill();
}

// --- list -------------------------------------------------------------------------------------
function dot(k) {
  const made = document.createElement("i"), form = k < 0 ? 0 : shape(D.clusters[k].theme);
  made.style.background = `rgb(${tone(k)})`; made.className = ["round", "", "three"][form];
  return made;
}
function item(into, k, words, number, born = false) {
  const row = document.createElement("button");
  const text = document.createElement("span"), last = document.createElement("b");
  row.className = "item"; text.textContent = words; last.textContent = number;
  row.append(dot(k), text);
  if (born) { const mark = document.createElement("em"); mark.textContent = "✦ new"; row.append(mark); }
  row.append(last); into.append(row);
  return row;
}
function say(into, tag, text, kind = "") {
  const made = document.createElement(tag);
  made.textContent = text; made.className = kind; into.append(made);
  return made;
}
const LISTED = 300;
async function fillPosts(into, rows, most) {
  for (const i of rows.slice(0, most)) {
    const { text } = await post(i);
    item(into, C[i], excerpt(text), "").addEventListener("click", () => visit(i));
  }
  if (rows.length > most) say(into, "div", `and ${many(rows.length - most)} more`, "rest");
}
// A theme's clusters, largest first; those that are a topic of their own go before those of topics
// with a heading, so that none seems to belong to the heading above it.
function* byTopic(theme, into) {
  const topics = new Map();
  D.clusters.forEach((c, k) => {
    if (c.theme === theme) topics.set(c.topic ?? `${k}`, [...topics.get(c.topic ?? `${k}`) ?? [], [c, k]]);
  });
  const several = [...topics].filter(([, own]) => own.length > 1);
  for (const [, own] of topics) if (own.length === 1) yield own[0];
  for (const [id, own] of several) {
    say(into, "h3", D.topics.find(topic => topic.id === id)?.name ?? "", "topic");
    yield* own;
  }
}
async function fill() {  // the hits of a search, or else the clusters by theme
  const made = document.createDocumentFragment(), mine = searching;
  if (hits) await fillPosts(made, hits.filter(passes), LISTED);
  else for (const theme of D.themes) {
    say(made, "h2", theme.name, "theme").style.color = ink(theme.id);
    for (const [c, k] of byTopic(theme.id, made)) {
      const row = item(made, k, c.name, many(c.size), c.born);
      row.dataset.k = k; row.classList.toggle("on", k === picked);
      row.setAttribute("aria-pressed", String(k === picked));
      row.addEventListener("click", () => pick(k));
    }
  }
  if (mine === searching) $("list").replaceChildren(made);
}
function pick(k) {
  picked = picked === k ? -1 : k;
  document.querySelectorAll(".item[data-k]").forEach(e => {
    e.classList.toggle("on", +e.dataset.k === picked);
    e.setAttribute("aria-pressed", String(+e.dataset.k === picked));
  });
  restate();
  if (picked < 0) { all(); return; }
  side.classList.add("folded");
  const xs = [], ys = [];
  for (let i = 0; i < N; i++) if (C[i] === picked) { xs.push(X[i]); ys.push(Y[i]); }
  xs.sort((a, b) => a - b); ys.sort((a, b) => a - b);
  const at = (v, q) => v[Math.min(v.length - 1, Math.floor(v.length * q))] || 0;
  const px = 2500 + (at(xs, .95) - at(xs, .05)) * .6, py = 2500 + (at(ys, .95) - at(ys, .05)) * .6;
  moved = true;
  fit(at(xs, .05) - px, at(ys, .05) - py, at(xs, .95) + px, at(ys, .95) + py);
}

// --- filters ----------------------------------------------------------------------------------
/** Two sliders over the values of a column; each stands at a share of the sorted values. */
function slider(name, values, bars, shown, none, set) {
  const known = values.filter(value => value !== NONE).sort();
  if (!known.length || known[0] === known[known.length - 1]) return;
  const low = known[0], high = known[known.length - 1], steps = bars ? Math.min(400, high - low) : 200;
  const at = step => bars ? Math.round(low + (high - low) * step / steps)
    : known[Math.round((known.length - 1) * step / steps)];
  const box = document.createElement("fieldset"), legend = say(box, "legend", "");
  const ends = ["from", "to"].map((end, which) => {
    const input = document.createElement("input");
    Object.assign(input, { type: "range", min: 0, max: steps, value: which ? steps : 0 });
    input.setAttribute("aria-label", `${name}, ${end}`);
    return input;
  });
  const columns = bars ? histogram(known, low, high) : [];
  if (bars) { const frame = say(box, "div", "", "bars"); frame.append(...columns); frame.setAttribute("aria-hidden", "true"); }
  box.append(...ends);
  const told = () => {
    const [a, b] = ends.map(end => +end.value).sort((x, y) => x - y), whole = a === 0 && b === steps;
    const span = `${shown(at(a))} to ${shown(at(b))}`;
    legend.textContent = `${name}: ${span}${whole || known.length === N ? "" : `; ${none} left out`}`;
    ends.forEach(end => end.setAttribute("aria-valuetext", shown(at(+end.value))));
    columns.forEach((bar, c) => bar.classList.toggle("out",
      (c + 1) / columns.length <= a / steps || c / columns.length >= b / steps && b < steps));
    return whole ? null : [at(a), at(b)];
  };
  for (const end of ends) end.addEventListener("input", () => { set(told()); narrowed(); });
  told();
  $("ranges").append(box);
}
function histogram(known, low, high) {
  const counts = new Array(60).fill(0);
  for (const value of known) counts[Math.min(59, Math.floor((value - low) / (high - low) * 60))]++;
  const most = Math.max(...counts);
  return counts.map(number => {
    const bar = document.createElement("i");
    bar.style.height = `${100 * number / most}%`;
    return bar;
  });
}
let waiting = 0;
function narrowed() { restate(); clearTimeout(waiting); if (hits) waiting = setTimeout(fill, 200); }
function box(words, on, set) {
  const label = document.createElement("label"), input = document.createElement("input");
  input.type = "checkbox"; input.checked = on;
  input.addEventListener("change", () => { set(input.checked); narrowed(); });
  label.append(input, words); $("ranges").append(label);
}
function filters() {
  slider("Date", DAY, true, dayOf, "undated", span => { bounds.day = span; });
  slider("Score", SCORE, false, many, "unscored", span => { bounds.score = span; });
  if (C.includes(-1)) box(`${D.noun} in no cluster`, true, on => { bounds.noise = on; });
  if (D.clusters.some(c => c.born)) box("only clusters that are new tonight ✦", false, on => { bounds.born = on; });
  $("filters").hidden = !$("ranges").children.length;
}

// --- a post -----------------------------------------------------------------------------------
function about(i) {
  const facts = [];
  if (SCORE[i] !== NONE) facts.push(`${D.score} ${many(SCORE[i])}`);
  if (dayOf(DAY[i])) facts.push(dayOf(DAY[i]));
  return facts;
}
async function show(i) {
  shown = i;
  $("card").style.display = i < 0 ? "none" : "flex";
  $("tip").style.display = "none";
  draw(false);
  if (i < 0) return;
  $("chosen").style.display = "none";
  $("of").textContent = home(i);
  $("text").textContent = "…"; $("about").textContent = "";
  let held;
  try { held = await post(i); } catch (error) { $("text").textContent = error.message; return; }
  if (shown !== i) return;
  $("text").textContent = held.text || "(no text)";
  $("text").scrollTop = 0;
  for (const fact of about(i)) say($("about"), "span", fact);
  if (held.link) {
    const link = say($("about"), "a", D.open);
    link.setAttribute("href", held.link); link.target = "_blank"; link.rel = "noopener noreferrer";
  }
}
function visit(i) {  // from a list: bring it into view
  const x = sx(X[i]), y = sy(Y[i]), from = edge();
  if (x < from + 20 || y < 20 || x > V.width - 430 || y > V.height - 20)
    pan((V.width + from) / 2 - x, V.height / (phone() ? 3 : 2) - y);
  if (phone()) side.classList.add("folded");
  show(i);
}
let tipped = 0;
async function hover(i, px, py) {
  const tip = $("tip"), mine = ++tipped;
  if (i < 0) { tip.style.display = "none"; return; }
  const place = () => {
    tip.style.left = Math.min(px + 14, V.width - tip.offsetWidth - 8) + "px";
    tip.style.top = Math.min(py + 14, V.height - tip.offsetHeight - 8) + "px";
  };
  let words = "";
  try { words = excerpt((await post(i)).text); } catch (error) { notice(error.message); }
  if (mine !== tipped) return;
  tip.textContent = "";
  say(tip, "em", home(i));
  if (C[i] >= 0 && D.clusters[C[i]].born) say(tip, "b", "✦ new tonight");
  say(tip, "div", words);
  say(tip, "em", about(i).join(" · "));
  tip.style.display = "block";
  place();
}
