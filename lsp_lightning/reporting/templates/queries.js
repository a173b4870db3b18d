"use strict";
// The browser of queries. Texts of a run reach the page by textContent only.
const AT_ONCE = 200;
const ALL = "all queries";

function startBrowser() {
  const byId = (id) => document.getElementById(id);
  const [list, detail, form] = ["list", "detail", "filters"].map(byId);
  const field = (id) => byId(id).value.trim();
  let found = [];
  let drawn = 0;
  let chosen = -1;

  const marksOf = (query) => (query.m || []).map((mark) => mark.split(":")[0]);
  const number = (value, digits = 2) => (value === null ? "-" : value.toFixed(digits));

  function tag(text) {
    return element("span", { class: `tag ${text.split(":")[0]}` }, text);
  }

  function searchable(query) {
    if (query.s === undefined) {
      const extra = DATA.queries[field("run")].scores.length + 4;
      query.s = [query.q, ...query.a.flatMap((a) => [a[0], a[extra] || ""])].join("\n").toLowerCase();
    }
    return query.s;
  }

  function within(value, low, high) {
    return (low === "" || value >= Number(low)) && (high === "" || value <= Number(high));
  }

  function spreadOf(query) {
    const scores = query.a.map((answer) => answer[2]).filter((score) => score !== null);
    return scores.length ? Math.max(...scores) - Math.min(...scores) : -1;
  }

  function sorted(queries) {
    const by = (key) => queries.map((query) => [key(query), query]).sort((a, b) => a[0] - b[0]).map((p) => p[1]);
    switch (field("sort")) {
      case "last": return by((query) => -query.t);
      case "hard": return by((query) => (query.v === null ? Infinity : query.v));
      case "easy": return by((query) => (query.v === null ? Infinity : -query.v));
      case "spread": return by((query) => -spreadOf(query));
      default: return queries;
    }
  }

  function filter() {
    const all = DATA.queries[field("run")].groups;
    const text = field("search").toLowerCase();
    const mark = field("mark");
    const [low, high] = [field("low"), field("high")];
    found = sorted(all.filter((query) => within(query.t, field("from"), field("to"))
      && ((low === "" && high === "") || (query.v !== null && within(query.v, low, high)))
      && (mark === ALL || (mark === "well-formed" ? !query.m : marksOf(query).includes(mark)))
      && (!text || searchable(query).includes(text))));
    byId("count").textContent = `${found.length.toLocaleString("en")} of ${all.length.toLocaleString("en")} queries`;
    list.replaceChildren();
    list.scrollTop = drawn = 0;
    chosen = -1;
    detail.replaceChildren(element("p", { class: "empty" }, found.length ? "Choose a query." : ""));
    if (!found.length) list.append(element("p", { class: "empty" }, "No query matches."));
    drawMore();
    if (found.length) choose(0, false);
  }

  function drawMore() {
    list.querySelector(".more")?.remove();
    const end = Math.min(drawn + AT_ONCE, found.length);
    for (; drawn < end; drawn++) list.append(rowOf(found[drawn], drawn));
    if (drawn < found.length) {
      const left = (found.length - drawn).toLocaleString("en");
      const more = element("button", { class: "more", type: "button" }, `${left} more`);
      more.addEventListener("click", drawMore);
      list.append(more);
    }
  }

  function rowOf(query, place) {
    const start = element("span", { class: "start text" }, ...(query.m || []).map(tag), ...highlighted(query.q.slice(0, 400)));
    const row = element("div", { class: "query", role: "option", id: `query-${place}`, "aria-selected": "false" },
      element("span", { class: "round" }, String(query.t)),
      element("span", { class: "value" }, query.a.length ? number(query.v) : ""), start);
    row.addEventListener("click", () => choose(place, true));
    return row;
  }

  function choose(place, focus) {
    while (place >= drawn && drawn < found.length) drawMore();
    if (place < 0 || place >= found.length) return;
    byId(`query-${chosen}`)?.setAttribute("aria-selected", "false");
    chosen = place;
    const row = byId(`query-${place}`);
    row.setAttribute("aria-selected", "true");
    list.setAttribute("aria-activedescendant", row.id);
    if (focus) { list.focus({ preventScroll: true }); scrollTo(row); }
    showAnswers(found[place]);
  }

  function scrollTo(row) { // only inside of the list: the page stays where it is
    const [top, bottom] = [row.offsetTop - list.offsetTop, row.offsetTop - list.offsetTop + row.offsetHeight];
    if (top < list.scrollTop) list.scrollTop = top;
    else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
  }

  function highlighted(text) {
    const wanted = field("search").toLowerCase();
    const lower = text.toLowerCase();
    if (!wanted || lower.length !== text.length) return [text]; // some letters grow in lower case
    const parts = [];
    let at = 0;
    for (let hit = lower.indexOf(wanted); hit >= 0; hit = lower.indexOf(wanted, at)) {
      parts.push(text.slice(at, hit), element("mark", {}, text.slice(hit, hit + wanted.length)));
      at = hit + wanted.length;
    }
    return [...parts, text.slice(at)];
  }

  function figures(pairs) {
    return element("div", { class: "figures" },
      ...pairs.map(([name, value]) => element("span", {}, `${name} `, element("b", {}, value))));
  }

  function showAnswers(query) {
    const { scores } = DATA.queries[field("run")];
    const value = query.a.length ? [["mean R", number(query.v)]] : [];
    const parts = [
      figures([["round", String(query.t)], ...value, ...Object.entries(query.f || {}).filter(([name]) => !isLong(name))]),
      element("div", {}, ...(query.m || []).map(tag)),
    ];
    for (const [name, text] of Object.entries(query.f || {})) {
      if (isLong(name)) parts.push(element("small", {}, name), element("div", { class: "text" }, text));
    }
    parts.push(element("div", { class: "text asked" }, ...highlighted(query.q)));
    for (const answer of query.a) parts.push(answerOf(answer, scores));
    if (!query.a.length) parts.push(element("p", { class: "empty" }, "The gate refused this query, so nobody answered it."));
    detail.replaceChildren(...parts);
    detail.scrollTop = 0;
  }

  const isLong = (name) => name === "passage" || name === "written query";

  function answerOf(answer, scores) {
    const [text, verdict, reward, quality, ...rest] = answer;
    const pairs = [["R", number(reward)], ["Q", number(quality)],
      ...scores.map((name, i) => [name, number(rest[i], 3)])];
    const made = element("div", { class: "answer" }, figures(pairs));
    if (verdict) made.firstChild.prepend(tag(verdict));
    made.append(element("div", { class: "text" }, ...highlighted(text || "(empty)")));
    const judged = rest[scores.length];
    if (judged !== undefined) made.append(element("small", {}, "judged as"), element("div", { class: "text" }, judged));
    return made;
  }

  function fillFilters() {
    const groups = DATA.queries[field("run")].groups;
    const rounds = groups.map((query) => query.t);
    byId("from").placeholder = rounds[0];
    byId("to").placeholder = rounds[rounds.length - 1];
    const counts = new Map([[ALL, groups.length], ["well-formed", groups.filter((query) => !query.m).length]]);
    for (const query of groups) for (const mark of marksOf(query)) counts.set(mark, (counts.get(mark) || 0) + 1);
    const options = [...counts].map(([mark, count]) => element("option", { value: mark }, `${mark} (${count.toLocaleString("en")})`));
    byId("mark").replaceChildren(...options);
  }

  const withQueries = DATA.queries.map((_, i) => i).filter((i) => DATA.queries[i].groups.length);
  byId("run").append(...withQueries.map((i) => element("option", { value: i }, DATA.runs[i].name)));
  byId("run-label").hidden = withQueries.length < 2;
  if (withQueries.length < 2) byId("run-label").style.display = "none";
  byId("run").addEventListener("change", fillFilters);
  let waiting = 0;
  form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 120); });
  form.addEventListener("submit", (event) => event.preventDefault());
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
  list.addEventListener("keydown", (event) => {
    if (!(event.key in steps)) return;
    event.preventDefault();
    choose(Math.min(Math.max(chosen + steps[event.key], 0), found.length - 1), true);
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, select, textarea");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      byId("search").focus();
    }
  });
  byId("search").addEventListener("keydown", (event) => { if (event.key === "ArrowDown") { event.preventDefault(); choose(Math.max(chosen, 0), true); } });
  fillFilters();
  filter();
}

if (document.getElementById("list")) startBrowser();
