"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const text = (number) => data.texts[number];
  const NAMES = { p: "pass", f: "fail", w: "waived", n: "not-applicable", e: "error", u: "unreachable" };
  const table = byId("matrix");
  const heads = [...table.tHead.rows[0].cells].slice(1);
  const rows = [...table.tBodies[0].rows];
  const controls = data.controls.map((numbers) => {
    const [id, title, severity, measure, aspect, why, source, fix] = numbers.map(text);
    return { id, title, severity, measure, aspect, why, source, fix, words: `${id} ${title} ${measure}`.toLowerCase() };
  });
  const hosts = data.hosts.map(([name, marks, details]) => ({ name: text(name), words: text(name).toLowerCase(), marks, details }));

  // Filter: a cell counts where every word is in its host or its control, and its status and severity are chosen.
  const form = byId("filter");
  const findings = [...document.querySelectorAll(".finding")].map((element) => ({
    element,
    status: element.dataset.status,
    severity: element.dataset.severity,
    words: `${element.querySelector("b").textContent} ${[...element.querySelectorAll(".find")].map((e) => e.textContent).join(" ")}`.toLowerCase(),
  }));
  const chosen = (name) => new Set([...form.querySelectorAll(`input[name=${name}]:checked`)].map((box) => box.value));

  function filter() {
    const words = byId("words").value.toLowerCase().split(/\s+/).filter(Boolean);
    const marks = chosen("status");
    const statuses = new Set([...marks].map((mark) => NAMES[mark]));
    const severities = chosen("severity");
    const columns = controls.map((control) => ({
      wanted: severities.has(control.severity),
      missing: words.filter((word) => !control.words.includes(word)),
      used: false,
    }));
    let shown = 0;
    hosts.forEach((host, at) => {
      const found = new Set(words.filter((word) => host.words.includes(word)));
      let used = false;
      columns.forEach((column, index) => {
        if (column.wanted && marks.has(host.marks[index]) && column.missing.every((word) => found.has(word))) {
          column.used = used = true;
        }
      });
      rows[at].hidden = !used;
      shown += used;
    });
    columns.forEach((column, index) => {
      if (heads[index].hidden === !column.used) return;
      heads[index].hidden = !column.used;
      for (const row of rows) row.cells[index + 1].hidden = !column.used;
    });
    let told = 0;
    for (const one of findings) {
      const fits = statuses.has(one.status) && severities.has(one.severity) && words.every((word) => one.words.includes(word));
      one.element.hidden = !fits;
      told += fits;
    }
    byId("shown").textContent = `${shown} of ${hosts.length} hosts, ${told} of ${findings.length} findings.`;
    if (current && (current.hidden || current.parentNode.hidden)) choose(first());
  }

  // The matrix: one stop for the Tab key, arrow keys inside.
  let current = null;
  const usable = (cell) => cell && cell.tagName === "TD" && !cell.hidden && !cell.parentNode.hidden;
  const first = () => rows.filter((row) => !row.hidden).flatMap((row) => [...row.cells]).find(usable) ?? null;
  function choose(cell, focus) {
    current?.removeAttribute("tabindex");
    current = cell;
    if (!cell) return;
    cell.tabIndex = 0;
    const { host, control, mark } = at(cell);
    cell.setAttribute("aria-label", `${host.name}, ${control.id}: ${NAMES[mark] ?? "not asked"}`);
    if (focus) {
      cell.focus();
      cell.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  }
  function at(cell) {
    const host = hosts[rows.indexOf(cell.parentNode)];
    const index = cell.cellIndex - 1;
    return { host, control: controls[index], mark: host.marks[index], detail: host.details[index] };
  }
  const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  table.addEventListener("keydown", (event) => {
    const cell = event.target.closest("td");
    if (!cell) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      show(cell);
      return;
    }
    const step = STEPS[event.key];
    if (!step) return;
    event.preventDefault();
    let row = rows.indexOf(cell.parentNode);
    let column = cell.cellIndex;
    do {
      row += step[0];
      column += step[1];
    } while (rows[row]?.cells[column] && !usable(rows[row].cells[column]) && column > 0);
    if (usable(rows[row]?.cells[column])) choose(rows[row].cells[column], true);
  });
  table.addEventListener("click", (event) => {
    const cell = event.target.closest("td");
    if (cell) {
      choose(cell, true);
      show(cell);
    }
  });

  // The evidence behind a cell. Text goes into text nodes only.
  const dialog = byId("detail");
  function add(list, label, value) {
    if (!value) return;
    const term = document.createElement("dt");
    const description = document.createElement("dd");
    const pre = document.createElement("pre");
    term.textContent = label;
    pre.textContent = value;
    description.append(pre);
    list.append(term, description);
  }
  function show(cell) {
    const { host, control, mark, detail } = at(cell);
    if (!detail.length) return;
    byId("detail-title").textContent = `${host.name}, ${control.id}: ${NAMES[mark]}`;
    byId("detail-about").textContent = [control.severity, control.aspect, control.title].filter(Boolean).join(", ");
    const list = dialog.querySelector("dl");
    list.replaceChildren();
    const [wanted, saw, command, waiver, ...seen] = detail.map(text);
    add(list, "wanted", wanted);
    add(list, "saw", saw);
    add(list, "seen by", command);
    add(list, "waiver", waiver);
    for (let i = 0; i < seen.length; i += 3) {
      add(list, "evidence", `$ ${seen[i]}`);
      add(list, "output", seen[i + 1] || "(nothing)");
      add(list, "error", seen[i + 2]);
    }
    if (mark !== "p" && mark !== "n") add(list, "by hand", control.fix);
    if (control.measure && mark === "f") add(list, "mended by", `a deploy of the measure ${control.measure}`);
    add(list, "why", control.why);
    add(list, "source", control.source);
    dialog.showModal();
    dialog.scrollTop = 0;
  }
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });

  // On paper everything is unfolded.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = findings.map((one) => one.element).filter((element) => !element.open);
    for (const element of folded) element.open = true;
  });
  addEventListener("afterprint", () => {
    for (const element of folded) element.open = false;
  });

  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  table.setAttribute("role", "grid");
  form.hidden = false;
  document.querySelector(".hint").hidden = false;
  choose(first());
  filter();
})();
