// The live page: asks for /live.json once a second and shows it. Every text from outside is set as text, never as HTML.
"use strict";
(() => {
  const PERIOD_MS = 1000, KEPT = 61, COLUMNS = 32, STEPS = 6;
  const SVG = "http://www.w3.org/2000/svg";
  const $ = (id) => document.getElementById(id);
  const put = (id, text) => { const at = $(id); if (at.textContent !== text) at.textContent = text; };
  const element = (name, attributes = {}, text) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const drawn = (name, attributes) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };

  // -- units ------------------------------------------------------------------------------------------------
  const size = (value) => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let index = 0;
    for (; value >= 1024 && index < units.length - 1; index++) value /= 1024;
    return `${index && value < 100 && value % 1 ? value.toFixed(1) : Math.round(value)} ${units[index]}`;
  };
  const time = (us) => us < 1000 ? `${us} µs` : us < 1e6 ? `${+(us / 1000).toPrecision(2)} ms` : `${+(us / 1e6).toPrecision(2)} s`;
  const lasting = (seconds) => {
    const [d, h, m, s] = [seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60].map(Math.floor);
    return d ? `${d} d ${h} h` : h ? `${h} h ${m} min` : m ? `${m} min ${s} s` : `${s} s`;
  };

  // -- state ------------------------------------------------------------------------------------------------
  let history = [], chosen = null, paused = false, timer = 0, cursor = 0, heat = null;

  const total = (each, command, what) => each.commands[command] ? each.commands[command][what] : 0;
  const find = (doc, name) => doc.exports.find((each) => each.name === name);
  // What was added between two documents, for each second between them; 0 where there is no earlier one.
  const rate = (now, before, value) => {
    if (!before || now.uptime_ns <= before.uptime_ns) return 0;
    return Math.max(0, value(now) - value(before)) * 1e9 / (now.uptime_ns - before.uptime_ns);
  };
  const sum = (doc, command, what) => doc.exports.reduce((all, each) => all + total(each, command, what), 0);

  // -- what is shown ----------------------------------------------------------------------------------------
  const tiles = (now, before) => {
    put("uptime", lasting(now.uptime_ns / 1e9));
    put("connections", `${now.connections} of ${now.connections_limit}`);
    put("reading", `${size(rate(now, before, (doc) => sum(doc, "read", "bytes")))}/s`);
    put("writing", `${size(rate(now, before, (doc) => sum(doc, "write", "bytes")))}/s`);
    put("flight", size(now.bytes_in_flight));
  };

  const rows = (now, before) => {
    const body = $("exports");
    while (body.rows.length > now.exports.length) body.deleteRow(-1);
    now.exports.forEach((each, index) => {
      let row = body.rows[index];
      if (!row) {
        row = body.insertRow();
        const button = element("button", { type: "button" });
        row.insertCell().append(button);
        for (let cell = 1; cell < 8; cell++) row.insertCell().className = cell === 2 ? "" : "number";
        button.addEventListener("click", () => { chosen = button.dataset.name; ask(); });
      }
      const button = row.cells[0].firstChild;
      button.dataset.name = each.name;
      if (button.textContent !== each.shown) button.textContent = each.shown;
      button.setAttribute("aria-pressed", String(each.name === chosen));
      const was = (doc, command, what) => { const found = find(doc, each.name); return found ? total(found, command, what) : 0; };
      const all = (doc, what) => { const found = find(doc, each.name); return found ? Object.values(found.commands).reduce((n, one) => n + one[what], 0) : 0; };
      const cells = [
        each.size === null ? "not open" : size(each.size),
        each.writable === null ? "–" : each.writable ? "read, write" : "read only",
        String(each.sessions),
        `${size(rate(now, before, (doc) => was(doc, "read", "bytes")))}/s`,
        `${size(rate(now, before, (doc) => was(doc, "write", "bytes")))}/s`,
        `${Math.round(rate(now, before, (doc) => all(doc, "requests")))}/s`,
        String(all(now, "errors")),
      ];
      cells.forEach((text, cell) => { if (row.cells[cell + 1].textContent !== text) row.cells[cell + 1].textContent = text; });
    });
    $("more").hidden = now.exports_total <= now.exports.length;
    put("more", `${now.exports_total - now.exports.length} more exports are not shown.`);
  };

  const chart = () => {
    const rates = (command) => history.slice(1).map((doc, index) => {
      const value = (each) => { const found = find(each, chosen); return found ? total(found, command, "bytes") : 0; };
      return rate(doc, history[index], value);
    });
    const read = rates("read"), written = rates("write");
    const most = Math.max(1, ...read, ...written);
    const path = (values) => values.map((value, index) => {
      const x = 600 * (KEPT - 1 - values.length + index + 1) / (KEPT - 1);
      return `${index ? "L" : "M"}${x.toFixed(1)} ${(116 - 110 * value / most).toFixed(1)}`;
    }).join("");
    $("chart-read").setAttribute("d", path(read));
    $("chart-written").setAttribute("d", path(written));
    put("peak", most > 1 ? `at most ${size(most)}/s` : "nothing moved");
    const last = (values) => size(values.length ? values[values.length - 1] : 0);
    $("chart").setAttribute("aria-label", `Throughput of the last minute: now ${last(read)}/s read and ${last(written)}/s written, at most ${size(most > 1 ? most : 0)}/s`);
  };

  const latency = (now) => {
    const first = find(history[0], chosen), last = find(now, chosen), body = $("latency");
    const told = [];
    for (const [name, each] of Object.entries(last ? last.commands : {})) {
      const before = first && first !== last && first.commands[name] ? first.commands[name].latency : [];
      const buckets = each.latency.map((count, index) => Math.max(0, count - (before[index] || 0)));
      const count = buckets.reduce((a, b) => a + b, 0);
      if (count) told.push([name.replaceAll("_", " "), String(count), within(buckets, count, 0.5, now), within(buckets, count, 0.99, now)]);
    }
    if (!told.length) told.push(["nothing was asked", "", "", ""]);
    body.replaceChildren(...told.map((cells) => {
      const row = element("tr");
      row.append(...cells.map((text, index) => element("td", index ? { class: "number" } : {}, text)));
      return row;
    }));
  };
  const within = (buckets, count, share, now) => {
    let below = 0;
    for (let index = 0; index < buckets.length; index++) {
      below += buckets[index];
      if (below >= share * count) return index < now.latency_bounds_us.length ? time(now.latency_bounds_us[index]) : "longer";
    }
    return "–";
  };

  const step = (value, most) => value && most ? Math.max(1, STEPS + Math.floor(Math.log(value / most) / Math.log(4))) : 0;
  const map = (id, values) => {
    const at = $(id), rows = Math.max(1, Math.ceil(values.length / COLUMNS)), most = Math.max(0, ...values);
    if (at.childElementCount !== 2 * values.length + 1) {
      at.setAttribute("viewBox", `-0.1 -0.1 ${COLUMNS + 0.2} ${rows + 0.2}`);
      at.replaceChildren(
        ...values.map((_, index) => drawn("rect", { class: "cell", x: index % COLUMNS, y: Math.floor(index / COLUMNS), width: 1, height: 1 })),
        ...values.map(() => drawn("rect", { class: "hot" })),
        drawn("rect", { class: "cursor", width: 1, height: 1 }));
    }
    values.forEach((value, index) => {
      const side = value ? 0.3 + 0.62 * (step(value, most) - 1) / (STEPS - 1) : 0;
      const hot = at.children[values.length + index];
      for (const [key, number] of [["x", index % COLUMNS + (1 - side) / 2], ["y", Math.floor(index / COLUMNS) + (1 - side) / 2], ["width", side], ["height", side]])
        hot.setAttribute(key, number.toFixed(3));
    });
    point(at, values.length);
  };
  const point = (at, count) => {
    const mark = at.lastElementChild;
    cursor = Math.min(cursor, Math.max(0, count - 1));
    if (mark) { mark.setAttribute("x", cursor % COLUMNS); mark.setAttribute("y", Math.floor(cursor / COLUMNS)); }
  };
  const about = () => {
    const used = heat ? heat.read.map((value, index) => value + heat.written[index]) : [];
    if (!used.some(Boolean)) { put("cell", "No block was used yet."); return; }
    const moving = document.activeElement && document.activeElement.classList.contains("heat");
    const index = moving ? cursor : used.indexOf(Math.max(...used));
    const word = moving ? `Block ${index + 1} of ${used.length}` : "The busiest block";
    put("cell", `${word}: from ${size(index * heat.block)} to ${size((index + 1) * heat.block)}, ${size(heat.read[index])} read, ${size(heat.written[index])} written`);
  };
  const blocks = (now) => {
    heat = now.heat;
    if (!heat) return;
    put("block", `${heat.read.length} blocks of ${size(heat.block)}`);
    map("heat-read", heat.read);
    map("heat-written", heat.written);
    about();
  };

  const clients = (now) => {
    const told = now.clients.map((each) => `${each.peer}: ${each.export === null ? "in its handshake" : each.export || "the default export"}`);
    if (now.connections > now.clients.length) told.push(`${now.connections - now.clients.length} more`);
    if (!told.length) told.push("Nobody is connected.");
    $("clients").replaceChildren(...told.map((text) => element("li", { dir: "auto" }, text)));
  };

  const show = (now) => {
    if (!find(now, chosen)) chosen = (now.exports.find((each) => each.sessions) || now.exports[0] || { name: null }).name;
    if (history.length && now.uptime_ns < history[history.length - 1].uptime_ns) history = []; // another server
    history.push(now);
    if (history.length > KEPT) history.shift();
    const before = history[history.length - 2], found = find(now, chosen);
    tiles(now, before);
    rows(now, before);
    put("chosen", found ? found.shown : "–");
    $("description").hidden = !(found && found.description);
    put("description", found ? found.description : "");
    chart();
    latency(now);
    if (!now.heat || now.heat.export === chosen) blocks(now);
    clients(now);
  };

  // -- asking -----------------------------------------------------------------------------------------------
  const state = (word, kind) => { put("state", word); $("state").className = `state ${kind}`; };
  let asking = 0;
  const ask = async () => {
    clearTimeout(timer);
    const mine = ++asking; // an answer to an earlier question is of no use any more
    try {
      const query = chosen === null ? "" : `?export=${encodeURIComponent(chosen)}`;
      const answer = await fetch(`/live.json${query}`, { cache: "no-store", signal: AbortSignal.timeout(5000) });
      if (!answer.ok) throw new Error(String(answer.status));
      const found = await answer.json();
      if (mine !== asking) return;
      show(found);
      if (!paused) state("live", "");
    } catch {
      if (mine !== asking) return;
      if (!paused) state("the server does not answer", "lost");
    }
    if (!paused && !document.hidden) timer = setTimeout(ask, PERIOD_MS);
  };

  $("pause").addEventListener("click", () => {
    paused = !paused;
    $("pause").setAttribute("aria-pressed", String(paused));
    put("pause", paused ? "Go on" : "Pause");
    if (paused) { clearTimeout(timer); state("paused", "paused"); } else ask();
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden && !paused) ask(); });
  for (const id of ["heat-read", "heat-written"]) {
    const at = $(id);
    at.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -COLUMNS, ArrowDown: COLUMNS, Home: -cursor, End: heat ? heat.read.length - 1 - cursor : 0 };
      if (!(event.key in moves) || !heat) return;
      event.preventDefault();
      cursor = Math.min(Math.max(0, cursor + moves[event.key]), heat.read.length - 1);
      for (const each of ["heat-read", "heat-written"]) point($(each), heat.read.length);
      about();
    });
    at.addEventListener("focus", about);
    at.addEventListener("blur", about);
  }
  $("scale").setAttribute("viewBox", `0 0 ${STEPS * 1.3} 1`);
  for (let each = 0; each < STEPS; each++) {
    const side = 0.3 + 0.62 * each / (STEPS - 1);
    $("scale").append(drawn("rect", { x: each * 1.3 + (1 - side) / 2, y: (1 - side) / 2, width: side, height: side }));
  }
  ask();
})();
