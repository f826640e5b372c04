// Drawing the points: WebGL2, or a plain canvas with fewer points where there is none.
const HIDDEN = 0, FADED = 1, PLAIN = 2, PLAIN_POINTS = 30000, FEWEST = 20000;
const VERTEX = `#version 300 es
in vec2 place; in uint cluster; in uint state;
uniform vec2 scale, offset; uniform float size, alpha; uniform bool strong;
uniform highp sampler2D colours;
flat out vec4 colour; flat out int form; flat out float extent;
void main() {
  gl_Position = vec4(place * scale + offset, 0, 1);
  if (state == 0u && !strong || any(greaterThan(abs(gl_Position.xy), vec2(1.02)))) {
    gl_Position = vec4(2, 2, 2, 1); gl_PointSize = 1.; return;
  }
  int width = textureSize(colours, 0).x, at = int(cluster);
  vec4 found = texelFetch(colours, ivec2(at % width, at / width), 0);
  int kind = int(found.a * 255. + .5);
  form = kind & 3;
  bool born = (kind & 4) != 0;
  float clear = strong ? 1. : (cluster == 0u ? alpha * .5 : alpha) * (state == 1u ? .2 : 1.);
  colour = vec4(found.rgb * clear, clear);
  extent = size * (born ? 1.35 : 1.) + (strong ? 4. : 0.);
  gl_PointSize = extent;
}`;
const FRAGMENT = `#version 300 es
precision mediump float;
flat in vec4 colour; flat in int form; flat in float extent;
uniform bool strong; uniform vec3 rim;
out vec4 drawn;
void main() {
  vec2 at = gl_PointCoord * 2. - 1.;
  float edge = 1.;
  if (extent > 3.) {
    float far = form == 1 ? max(abs(at.x), abs(at.y)) + .12
      : form == 2 ? max(abs(at.x) * 1.6 + (-at.y) * .8, at.y * 1.25) : length(at);
    edge = clamp((1. - far) * extent * .5 + .5, 0., 1.);
    if (strong && far > 1. - 3. / extent) { drawn = vec4(rim, 1) * edge; return; }
  }
  drawn = colour * edge;
}`;

class Points {
  constructor(canvas) {
    this.canvas = canvas;
    this.share = 1;  // of the points that a frame draws while the map moves
    this.least = Math.min(1, FEWEST / N);
    this.pause = 16;  // between two frames, ms, on the average of the last few
    this.order = this.#shuffled();
    this.place = new Uint32Array(N);
    for (let at = 0; at < N; at++) this.place[this.order[at]] = at;
    this.state = new Uint8Array(N).fill(PLAIN);
    this.strong = new Uint32Array(0);
    canvas.addEventListener("webglcontextlost", e => { e.preventDefault(); this.gl = null; });
    canvas.addEventListener("webglcontextrestored", () => { this.#start(); draw(); });
    this.#start();
  }
  // Those of no cluster first, so that they lie below; each half shuffled, so that its first part
  // is a fair sample. Always the same numbers, so that a picture can be made again.
  #shuffled() {
    const order = new Uint32Array(N);
    let low = 0, high = N, seed = 1;
    for (let i = 0; i < N; i++) order[C[i] < 0 ? low++ : --high] = i;
    this.noise = low;
    for (const [from, to] of [[0, low], [low, N]])
      for (let i = to - 1; i > from; i--) {
        seed = Math.imul(seed, 1664525) + 1013904223 >>> 0;
        const j = from + Math.floor(seed / 4294967296 * (i - from + 1));
        [order[i], order[j]] = [order[j], order[i]];
      }
    return order;
  }
  #start() {
    const gl = this.gl = this.canvas.getContext("webgl2",
      { antialias: false, depth: false, preserveDrawingBuffer: true });
    if (!gl) { this.pen = this.canvas.getContext("2d"); return; }
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const part = gl.createShader(kind);
      gl.shaderSource(part, source); gl.compileShader(part); gl.attachShader(program, part);
    }
    ["place", "cluster", "state"].forEach((name, at) => gl.bindAttribLocation(program, at, name));
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost())
      throw Error(`The points cannot be drawn: ${gl.getProgramInfoLog(program)}`);
    gl.useProgram(program);
    this.at = name => gl.getUniformLocation(program, name);
    const places = new Float32Array(2 * N), clusters = new Uint32Array(N);
    this.order.forEach((i, at) => { places[2 * at] = X[i]; places[2 * at + 1] = Y[i];
      clusters[at] = C[i] + 1; });
    this.#buffer(places); gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
    this.#buffer(clusters); gl.vertexAttribIPointer(1, 1, gl.UNSIGNED_INT, 0, 0);
    this.states = this.#buffer(new Uint8Array(N)); gl.vertexAttribIPointer(2, 1, gl.UNSIGNED_BYTE, 0, 0);
    for (const at of [0, 1, 2]) gl.enableVertexAttribArray(at);
    this.elements = gl.createBuffer();
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER])
      gl.texParameteri(gl.TEXTURE_2D, side, gl.NEAREST);
    gl.enable(gl.BLEND); gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this.colour(); this.show(this.state, this.strong);
  }
  #buffer(values) {
    const gl = this.gl, made = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, made);
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    return made;
  }
  /** Colour and shape of each cluster; again after light turned to dark. */
  colour() {
    if (!this.gl) return;
    const gl = this.gl, width = 1024, height = Math.ceil((D.clusters.length + 1) / width);
    const texels = new Uint8Array(4 * width * height);
    texels.set(tone(-1), 0);
    D.clusters.forEach((c, k) => texels.set([...tone(k), shape(c.theme) | (c.born ? 4 : 0)], 4 * (k + 1)));
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, width, height, 0, gl.RGBA, gl.UNSIGNED_BYTE, texels);
  }
  /** How each point is drawn, by row, and the rows that stand out. */
  show(state, strong) {
    this.state = state; this.strong = strong;
    if (!this.gl) return;
    const gl = this.gl;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.states);
    gl.bufferData(gl.ARRAY_BUFFER, Uint8Array.from(this.order, i => state[i]), gl.DYNAMIC_DRAW);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.elements);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, Uint32Array.from(strong, i => this.place[i]), gl.DYNAMIC_DRAW);
  }
  resize(width, height, ratio) {
    this.canvas.width = width * ratio; this.canvas.height = height * ratio;
    this.canvas.style.width = width + "px"; this.canvas.style.height = height + "px";
    if (this.gl) this.gl.viewport(0, 0, this.canvas.width, this.canvas.height);
  }
  /** Draws from the start: a share of the points. `more` draws the next. */
  paint(view, radius) {
    this.done = 0;
    if (!this.gl) { if (this.pen) this.#plain(view, radius); return; }
    const gl = this.gl, { width, height, scale, left, top } = view;
    gl.clearColor(0, 0, 0, 0); gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform2f(this.at("scale"), 2 * scale / width, -2 * scale / height);
    gl.uniform2f(this.at("offset"), 2 * left / width - 1, 1 - 2 * top / height);
    gl.uniform1f(this.at("size"), 2 * radius * (devicePixelRatio || 1));
    gl.uniform1f(this.at("alpha"), N > 200000 ? .6 : .8);
    gl.uniform3f(this.at("rim"), ...(dark ? [1, 1, 1] : [0, 0, 0]));
    this.more();
  }
  /** The next share of the points; whether some are left. */
  more() {
    if (!this.gl || this.done >= 1) return false;
    const gl = this.gl, until = Math.min(1, this.done + this.share);
    gl.uniform1i(this.at("strong"), 0);
    for (const [from, to] of [[0, this.noise], [this.noise, N]]) {
      const start = from + Math.floor((to - from) * this.done), stop = from + Math.floor((to - from) * until);
      if (stop > start) gl.drawArrays(gl.POINTS, start, stop - start);
    }
    this.done = until;
    if (this.strong.length) {
      gl.uniform1i(this.at("strong"), 1);
      gl.drawElements(gl.POINTS, this.strong.length, gl.UNSIGNED_INT, 0);
    }
    return until < 1;
  }
  /** How many points this computer draws in a frame, measured on a few of them. */
  measure(view, radius) {
    if (!this.gl || this.least === 1) return;
    const gl = this.gl, pixel = new Uint8Array(4);
    const took = () => {
      const from = performance.now();
      this.paint(view, radius);
      gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);  // waits until they are there
      return performance.now() - from;
    };
    this.share = this.least;
    took();  // compiles
    this.share = Math.max(this.least, Math.min(1, this.share * 12 / Math.max(took(), .1)));
  }
  /** Fits the share to how long a frame took while the map moved, in ms. */
  pace(ms) {
    this.pause = .8 * this.pause + .2 * Math.min(ms, 250);
    if (this.pause > 22) this.share = Math.max(this.least, this.share * .85);
    else if (this.pause < 18) this.share = Math.min(1, this.share * 1.05);
  }
  #plain(view, radius) {
    const pen = this.pen, ratio = devicePixelRatio || 1, step = Math.max(1, N / PLAIN_POINTS);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, view.width, view.height);
    const dot = (i, r, alpha) => {
      const x = X[i] * view.scale + view.left, y = Y[i] * view.scale + view.top;
      if (x < -9 || y < -9 || x > view.width + 9 || y > view.height + 9) return;
      pen.fillStyle = `rgba(${tone(C[i])},${alpha})`;
      pen.fillRect(x - r, y - r, 2 * r, 2 * r);
    };
    for (let at = 0; at < N; at += step) {
      const i = this.order[Math.floor(at)];
      if (this.state[i] !== HIDDEN) dot(i, radius, this.state[i] === FADED ? .18 : C[i] < 0 ? .4 : .8);
    }
    for (const i of this.strong) dot(i, radius + 2, 1);
  }
}
