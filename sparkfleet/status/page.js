// Shows what the server sends. Whatever a host said is put into text nodes and attributes of our own, never into markup.
"use strict";
(() => {
  const GIB = 2 ** 30;
  const SVG = "http://www.w3.org/2000/svg";
  // Okabe and Ito's colours, told apart by most people; a hatch each for the others.
  const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#8a8f98"];
  const HATCHES = ["", "M0 8 8 0", "M0 4H8", "M4 0V8", "M0 0 8 8", "M0 8 8 0M0 0 8 8", "M0 2H8M0 6H8", "M2 0V8M6 0V8"];
  const MARKS = { asked: "…", up: "●", late: "◐", gone: "○", broken: "✗" };
  const LETTERS = {
    f: ["F", "fail"], e: ["E", "error"], u: ["U", "unreachable"], w: ["W", "waived"], p: ["·", "pass"],
    n: ["–", "not applicable"],
  };
  const POINTS = 450;
  const EVERY = 2;
  const hosts = new Map();
  const rows = new Map();
  const traces = new Map();
  const minutes = new Map();
  let order = [];
  let controls = [];
  let chosen = null;

  const find = (selector) => document.querySelector(selector);
  const make = (tag, text = "", className = "") => {
    const element = document.createElement(tag);
    element.textContent = text;
    if (className) element.className = className;
    return element;
  };
  const draw = (tag, attributes, parent) => {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    parent.append(element);
    return element;
  };
  const size = (count) => count === null || count === undefined ? "?" :
    count >= GIB ? `${(count / GIB).toFixed(1)} GiB` : `${Math.round(count / 2 ** 20)} MiB`;
  const age = (seconds) => {
    for (const [unit, most, length] of [["s", 120, 1], ["min", 7200, 60], ["h", 172800, 3600]])
      if (seconds < most) return `${Math.round(Math.max(0, seconds) / length)} ${unit}`;
    return `${Math.round(seconds / 86400)} d`;
  };
  const since = (at) => age(Date.now() / 1000 - at);
  const warmest = (says) => {
    const all = [says.temperature, ...says.gpus.map((gpu) => gpu.temperature)].filter((one) => one !== null);
    return all.length ? Math.max(...all) : null;
  };
  const use = (job) => job.cpu + (job.gpu || 0);

  // Each cell: label, key, its value, its text, whether it is a number.
  const cells = (host) => {
    const says = host.host;
    const found = [];
    const add = (label, key, value, text, number = true) => found.push({ label, key, value, text, number });
    const memory = says ? says.memory : {};
    const known = (value, text) => says ? text(value) : "";
    add("available", "available", memory.available, known(memory.available, size));
    add("of", "total", memory.total, known(memory.total, size));
    add("CPU", "cpu", memory.cpu, known(memory.cpu, size));
    add("GPU", "gpu", memory.gpu, known(memory.gpu, size));
    add("free", "free", memory.free, known(memory.free, size));
    const floor = says ? says.floor.term : null;
    add("floor", "floor", floor, says ? (floor === null ? "none" : size(floor)) : "");
    const jobs = says ? says.jobs : [];
    const word = (job) => `${job.owner} ${Math.round(use(job) / GIB)}` +
      (job.promise === null ? "" : `/${Math.round(job.promise / GIB)}`);
    add("jobs", "jobs", jobs.length, jobs.slice(0, 6).map(word).join(", "), false);
    const waits = says ? says.waiting.reduce((sum, one) => sum + one.jobs, 0) : 0;
    add("wait", "waiting", waits, waits || "");
    const gpu = says ? says.gpus.find((one) => one.clock !== null) : null;
    add("MHz", "clock", gpu ? gpu.clock : null, gpu ? gpu.clock : "");
    const warm = says ? warmest(says) : null;
    add("°C", "warmest", warm, warm === null ? "" : warm);
    const kill = says && says.kill;
    add("last kill", "kill", kill ? kill.at : null, kill ? `${since(kill.at)}: ${kill.name}: ${kill.reason}` : "", false);
    const red = host.audit ? Object.values(host.audit.red).reduce((sum, one) => sum + one, 0) : null;
    add("audit", "audit", red, host.audit ? `${red ? `${red} red` : "ok"}, ${since(host.audit.at)}` : "", false);
    add("drift", "drift", host.drift && host.drift.state,
      host.drift ? `${host.drift.state}, ${since(host.drift.at)}` : "", false);
    add("up", "up", says ? says.up : null, says && says.up !== null ? age(says.up) : "", false);
    add("release", "release", says ? says.release.version : null, says ? says.release.version : "", false);
    return found;
  };

  const needLine = (need) => {
    const line = make("li");
    line.append(make("span", need.level, `tag ${need.level === "act" ? "act" : "look"}`), ` ${need.text}`);
    return line;
  };

  const show = (name) => {
    const host = hosts.get(name);
    let row = rows.get(name);
    if (!row) {
      row = make("tr");
      const head = make("th");
      head.scope = "row";
      const button = make("button");
      button.addEventListener("click", () => open(name));
      head.append(button);
      row.append(head);
      row.dataset.host = name;
      rows.set(name, row);
    }
    row.className = Object.hasOwn(MARKS, host.link) ? host.link : "broken";
    row.setAttribute("aria-selected", String(name === chosen));
    const mark = `${MARKS[host.link] || "?"} ${name}${host.link === "up" ? "" : ` ${host.link}`}`;
    const button = row.querySelector("button");
    if (button.textContent !== mark) button.textContent = mark;
    const wanted = cells(host);
    while (row.children.length < wanted.length + 2) row.append(make("td"));
    wanted.forEach((cell, at) => {
      const td = row.children[at + 2];
      const text = String(cell.text);
      td.dataset.key = cell.key;
      td.dataset.label = cell.label;
      td.dataset.value = cell.value === null || cell.value === undefined ? "" : String(cell.value);
      td.className = cell.number ? "number" : "";
      if (td.textContent !== text) td.textContent = td.title = text;
    });
    const last = row.children[1];
    last.className = "needs";
    last.dataset.key = "needs";
    last.dataset.value = String(host.needs.length);
    const first = host.needs[0];
    const more = host.needs.length > 1 ? ` (+${host.needs.length - 1})` : "";
    const said = first ? `${first.level} ${first.text}${more}` : "";
    if (last.textContent !== said) {
      last.textContent = "";
      if (first) last.append(make("span", first.level, `tag ${first.level === "act" ? "act" : "look"}`), ` ${first.text}${more}`);
    }
  };

  const sort = () => {
    const body = find("#hosts tbody");
    for (const [name, row] of rows) if (!hosts.has(name)) { row.remove(); rows.delete(name); }
    order.forEach((name, at) => {
      const row = rows.get(name);
      // Moving the row that has the focus would take it away.
      if (row && body.children[at] !== row) {
        const focused = row.contains(document.activeElement) ? document.activeElement : null;
        body.insertBefore(row, body.children[at] || null);
        if (focused) focused.focus({ preventScroll: true });
      }
    });
  };

  const summary = () => {
    const all = [...hosts.values()];
    const acts = all.filter((host) => host.needs.some((need) => need.level === "act")).length;
    const looks = all.filter((host) => host.needs.length).length - acts;
    const up = all.filter((host) => host.link === "up").length;
    const text = `${all.length} hosts, ${up} up, ${acts} need somebody now, ${looks} a look`;
    if (find("#summary").textContent !== text) find("#summary").textContent = text;
  };

  const matrix = () => {
    const audited = order.filter((name) => hosts.get(name).audit);
    find("#no-audit").hidden = audited.length > 0;
    find("#matrix").parentElement.hidden = !audited.length;
    find("#matrix-legend").hidden = !audited.length;
    const stamp = audited.map((name) => `${name} ${hosts.get(name).audit.run}`).join("\n") + controls.length;
    if (find("#matrix").dataset.stamp === stamp) return;
    find("#matrix").dataset.stamp = stamp;
    const head = find("#matrix thead tr");
    head.replaceChildren(make("th", "host"), ...controls.map(([id, title, severity]) => {
      const th = make("th", id);
      th.title = `${severity}: ${title}`;
      th.scope = "col";
      return th;
    }));
    find("#matrix tbody").replaceChildren(...audited.map((name) => {
      const row = make("tr");
      const th = make("th", name);
      th.scope = "row";
      row.append(th, ...[...hosts.get(name).audit.letters].map((letter, at) => {
        const known = Object.hasOwn(LETTERS, letter) ? LETTERS[letter] : ["", ""];
        const td = make("td", known[0], known[0] ? letter : "");
        td.title = `${(controls[at] || [""])[0]}: ${known[1]}`;
        return td;
      }));
      return row;
    }));
  };

  const note = (name, host) => {
    const says = host.host;
    if (!says || host.link !== "up") return;
    const trace = traces.get(name);
    if (!trace || (trace.length && says.at - trace[trace.length - 1][0] < EVERY)) return;
    trace.push([says.at, says.memory.available, says.owners.slice(0, 8).map((one) => [one.owner, one.cpu + one.gpu])]);
    while (trace.length > POINTS) trace.shift();
  };

  // What is stacked: layers from below, each a name and a size at every time.
  const layers = (name, total) => {
    const names = [];
    if (find("input[name=span]:checked").value === "day") {
      const kept = minutes.get(name) || [];
      const series = kept.map(([at, available, cpu, gpu]) => [at, available, new Map([["CPU", cpu], ["GPU", gpu || 0]])]);
      return { names: ["GPU", "CPU"], series };
    }
    const series = (traces.get(name) || []).map(([at, available, owners]) => {
      const held = new Map(owners);
      for (const owner of held.keys()) if (!names.includes(owner) && names.length < 7) names.push(owner);
      const sum = [...held].reduce((all, [owner, count]) => all + (names.includes(owner) ? count : 0), 0);
      held.set("", Math.max(0, total - available - sum));
      return [at, available, held];
    });
    return { names: [...names, ""], series };
  };

  const fill = (at, defs, page) => {
    const id = `layer-${page}-${at}`;
    const pattern = draw("pattern", { id, width: 8, height: 8, patternUnits: "userSpaceOnUse" }, defs);
    draw("rect", { width: 8, height: 8, fill: COLOURS[at % COLOURS.length] }, pattern);
    if (HATCHES[at % 8]) draw("path", { d: HATCHES[at % 8], class: "hatch" }, pattern);
    return `url(#${id})`;
  };

  const chart = (name, host) => {
    const svg = find("#chart");
    const legend = find("#legend");
    const says = host.host;
    svg.replaceChildren();
    legend.replaceChildren();
    if (!says) return;
    const total = says.memory.total || 1;
    const { names, series } = layers(name, total);
    const box = svg.getBoundingClientRect();
    const [width, height, left, bottom, top] = [Math.max(200, box.width), Math.max(120, box.height), 58, 18, 6];
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const title = draw("title", { id: "chart-title" }, svg);
    const defs = draw("defs", {}, svg);
    find("#no-day").hidden = series.length > 0 || find("input[name=span]:checked").value !== "day";
    const last = series.length ? series[series.length - 1] : null;
    title.textContent = `Memory of ${name} by owner: ${size(total - says.memory.available)} of ${size(total)} in use`;
    if (!last) return;
    const [from, to] = [series[0][0], Math.max(last[0], series[0][0] + 10)];
    const x = (at) => left + (width - left - 8) * (at - from) / (to - from);
    const y = (count) => top + (height - top - bottom) * (1 - Math.min(count, total) / total);
    const floor = series.map(() => 0);
    names.forEach((owner, at) => {
      const colour = owner === "" ? "var(--rest)" : fill(at, defs, "chart");
      const upper = series.map(([when, , held], index) => {
        floor[index] += held.get(owner) || 0;
        return [x(when), y(floor[index])];
      });
      const lower = series.map(([when, , held], index) => [x(when), y(floor[index] - (held.get(owner) || 0))]).reverse();
      const text = (points) => points.map(([a, b]) => `${a.toFixed(1)} ${b.toFixed(1)}`).join("L");
      const area = draw("path", { d: `M${text(upper)}L${text(lower)}Z`, class: "edge area" }, svg);
      // An attribute, which the page's policy for styles does not concern.
      if (owner === "") area.setAttribute("fill", "currentColor"), area.setAttribute("color", "#8a8f98");
      else area.setAttribute("fill", colour);
      area.dataset.owner = owner;
      const item = make("span");
      const key = draw("svg", { viewBox: "0 0 22 14" }, item);
      const keyDefs = draw("defs", {}, key);
      draw("rect", { width: 22, height: 14, fill: owner === "" ? "#8a8f98" : fill(at, keyDefs, "key") }, key);
      item.append(make("bdi", owner || "all else"), ` ${size(last[2].get(owner) || 0)}`);
      legend.append(item);
    });
    for (const [kind, limit] of [["term", says.floor.term], ["kill", says.floor.kill]]) {
      if (limit === null) continue;
      const line = draw("line", { x1: left, x2: width - 8, y1: y(total - limit), y2: y(total - limit), class: kind }, svg);
      line.dataset.value = String(limit);
      draw("text", { x: left + 4, y: y(total - limit) + (kind === "term" ? 12 : -3) }, svg).textContent =
        `${kind === "term" ? "asks" : "kills"} with ${size(limit)} left`;
    }
    for (const share of [0, .5, 1])
      draw("text", { x: 2, y: y(total * share) + (share === 1 ? 10 : 0) }, svg).textContent = size(total * share);
    for (const event of says.events) {
      if (event.at < from || event.at > to) continue;
      const at = x(event.at);
      const mark = draw("path", { d: `M${at} ${top}l-6 12h12Z`, class: "mark" }, svg);
      draw("title", {}, mark).textContent = event.text;
    }
    const clock = (at) => new Date(at * 1000).toTimeString().slice(0, 8);
    draw("text", { x: left, y: height - 4 }, svg).textContent = clock(from);
    draw("text", { x: width - 60, y: height - 4 }, svg).textContent = clock(to);
  };

  const detail = () => {
    const host = hosts.get(chosen);
    find("#detail").hidden = !host;
    if (!host) return;
    const says = host.host;
    find("#detail-title").textContent = chosen;
    find("#needs").replaceChildren(...host.needs.map(needLine));
    chart(chosen, host);
    find("#jobs tbody").replaceChildren(...(says ? says.jobs : []).map((job) => {
      const row = make("tr");
      for (const text of [job.id, job.name || "-", job.owner]) row.append(make("td", text));
      const sizes = [job.promise === null ? "-" : size(job.promise), size(use(job)), size(job.cpu), size(job.gpu)];
      for (const text of sizes) row.append(make("td", text, "number"));
      return row;
    }));
    const opened = new Set([...document.querySelectorAll("#events details[open]")].map((one) => one.dataset.at));
    find("#events").replaceChildren(...(says ? says.events : []).map((event) => {
      const line = make("li");
      const when = new Date(event.at * 1000);
      line.append(make("time", `${when.toLocaleDateString()} ${when.toTimeString().slice(0, 8)}`), ` ${event.text}`);
      if (event.why.length) {
        const why = make("details");
        why.dataset.at = String(event.at);
        why.open = opened.has(why.dataset.at);
        why.append(make("summary", "why"), make("pre", event.why.join("\n")));
        line.append(why);
      }
      return line;
    }));
  };

  const open = async (name) => {
    chosen = name === chosen ? null : name;
    for (const one of order) show(one);
    if (chosen && !traces.has(chosen)) {
      const answer = await fetch(`trace?host=${encodeURIComponent(chosen)}`, { credentials: "same-origin" });
      if (answer.ok) {
        const told = await answer.json();
        traces.set(name, told.points);
        minutes.set(name, told.minutes);
      }
    }
    detail();
    if (chosen) find("#detail").focus();
    else rows.get(name)?.querySelector("button").focus();
  };

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && chosen) { open(chosen); return; }
    const row = document.activeElement?.closest?.("#hosts tbody tr");
    if (!row || !["ArrowDown", "ArrowUp"].includes(event.key)) return;
    const next = event.key === "ArrowDown" ? row.nextElementSibling : row.previousElementSibling;
    if (next) next.querySelector("button").focus();
    event.preventDefault();
  });
  find("#close").addEventListener("click", () => chosen && open(chosen));
  find("#span").addEventListener("change", detail);
  addEventListener("resize", detail);
  find("#matrix-legend").append(...Object.entries(LETTERS).map(([letter, [text, word]]) => {
    const item = make("span");
    item.append(make("span", text, `key ${letter}`), ` ${word}`);
    return item;
  }));

  const stream = new EventSource("events");
  stream.addEventListener("fleet", (event) => {
    const told = JSON.parse(event.data);
    find("#lost").hidden = true;
    find("#fleet").textContent = told.fleet;
    if (told.controls) controls = told.controls;
    order = told.order;
    for (const name of [...hosts.keys()]) if (!order.includes(name)) hosts.delete(name);
    for (const host of told.hosts) {
      hosts.set(host.name, host);
      note(host.name, host);
      show(host.name);
    }
    sort();
    summary();
    matrix();
    if (chosen && told.hosts.some((host) => host.name === chosen)) detail();
    document.body.dataset.told = String(Number(document.body.dataset.told || 0) + 1);
  });
  stream.addEventListener("error", () => {
    find("#lost").hidden = false;
    for (const row of rows.values()) row.className = "gone";
  });
})();
