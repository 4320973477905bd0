"""How the page looks: system fonts, one column of text, light and dark, cards instead of tables on a phone."""

STYLE = """
:root {
  --ground: #fbfbf9; --card: #ffffff; --ink: #1f2733; --soft: #5d6876; --line: #e3e5e8; --accent: #2b5f9e;
  --yes: #1f6b45; --yes-ground: #e3f2e9; --no: #8c3b22; --no-ground: #f9e7e0; --open: #56616f; --open-ground: #eceef1;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14181e; --card: #1b2028; --ink: #dde2e9; --soft: #97a2b0; --line: #2e3641; --accent: #7fb0e8;
    --yes: #8fd6b0; --yes-ground: #1d3629; --no: #f0ab93; --no-ground: #42261c; --open: #aab4c0; --open-ground: #2a313b;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body {
  margin: 0 auto; padding: 0 clamp(1rem, 4vw, 3rem) 4rem; max-width: 82rem;
  background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; overflow-wrap: anywhere;
}
header { padding: 3rem 0 1.2rem; border-bottom: 1px solid var(--line); }
h1, h2 { font-family: Charter, "Bitstream Charter", "Iowan Old Style", Georgia, serif; font-weight: 600; }
h1 { margin: 0; font-size: clamp(1.7rem, 1.2rem + 2vw, 2.5rem); line-height: 1.2; letter-spacing: -0.01em; }
header p { margin: 0.5rem 0 1.1rem; color: var(--soft); max-width: 46rem; }
nav { display: flex; flex-wrap: wrap; gap: 0.25rem 1.1rem; font-size: 0.9rem; }
a { color: var(--accent); text-decoration: none; }
a:hover, a:focus-visible { text-decoration: underline; }
section { padding-top: 2.6rem; }
h2 { margin: 0 0 0.9rem; font-size: 1.5rem; line-height: 1.25; }
h3 { margin: 1.6rem 0 0.6rem; font-size: 1.02rem; font-weight: 600; line-height: 1.35; }
p { max-width: 46rem; margin: 0 0 1rem; }
.note { color: var(--soft); font-size: 0.87rem; margin: 0.6rem 0 0; max-width: 62rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); gap: 1rem; }
figure {
  margin: 0; padding: 1rem; background: var(--card); border: 1px solid var(--line); border-radius: 10px; min-width: 0;
}
figure img { display: block; width: 100%; max-width: 36rem; height: auto; margin: 0 auto; }
figure img.crisp { image-rendering: pixelated; width: auto; max-width: 100%; min-width: min(60%, 16rem); }
figcaption { margin-top: 0.7rem; color: var(--soft); font-size: 0.87rem; }
figcaption b { display: block; color: var(--ink); font-weight: 600; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
table {
  border-collapse: collapse; width: 100%; font-size: 0.87rem; line-height: 1.4; font-variant-numeric: tabular-nums;
}
th, td {
  padding: 0.5rem 0.55rem; text-align: left; vertical-align: top; overflow-wrap: normal;
  border-top: 1px solid var(--line);
}
td { min-width: 4.6rem; max-width: 22rem; }
td.long { min-width: 10.5rem; }
td.number { min-width: 3rem; }
thead th:first-child, tbody th { padding-left: 0.9rem; }
thead th:last-child, td:last-child { padding-right: 0.9rem; }
thead th { border-top: 0; color: var(--soft); font-weight: 500; font-size: 0.8rem; vertical-align: bottom; }
tbody th { font-weight: 600; max-width: 18rem; overflow-wrap: anywhere; min-width: 9rem; }
.number { text-align: right; }
td.number { white-space: nowrap; }
.finding {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem 1.15rem; margin: 0 0 0.8rem;
}
.finding h3 { margin: 0 0 0.6rem; }
.finding ul { list-style: none; margin: 0 0 0.5rem; padding: 0; }
.finding li {
  display: flex; flex-wrap: wrap; gap: 0.15rem 0.7rem; padding: 0.4rem 0; font-size: 0.92rem; align-items: baseline;
}
.finding li + li { border-top: 1px solid var(--line); }
.runs, details { color: var(--soft); font-size: 0.87rem; }
.verdict { border-radius: 99px; padding: 0.05rem 0.65rem; font-size: 0.8rem; font-weight: 600; }
.yes { color: var(--yes); background: var(--yes-ground); }
.no { color: var(--no); background: var(--no-ground); }
.open { color: var(--open); background: var(--open-ground); }
summary { cursor: pointer; color: var(--accent); padding: 0.25rem 0; width: fit-content; }
section > details { margin-top: 0.8rem; }
details p { margin: 0.3rem 0 0; }
details .scroll { color: var(--ink); margin-top: 0.5rem; }
pre {
  white-space: pre-wrap; overflow-wrap: anywhere; margin: 0.5rem 0; padding: 0.8rem 1rem;
  background: var(--card); color: var(--ink); border: 1px solid var(--line); border-radius: 10px;
}
pre, code { font: 0.82rem/1.6 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
code { overflow-wrap: anywhere; }
@media (max-width: 44rem) {
  header { padding-top: 1.8rem; }
  figure { padding: 0.6rem; }
  .scroll { background: none; border: 0; border-radius: 0; }
  table, tbody, tr, th, td, td.long, td.number, tbody th { display: block; width: auto; min-width: 0; max-width: none; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  tbody tr {
    background: var(--card); border: 1px solid var(--line); border-radius: 10px;
    padding: 0.7rem 0.9rem; margin: 0 0 0.7rem;
  }
  tbody th { padding: 0 0 0.35rem; border: 0; font-size: 0.95rem; }
  td, td.long, td.number, td:last-child {
    display: flex; justify-content: space-between; gap: 1rem; padding: 0.28rem 0; text-align: right;
    white-space: normal; overflow-wrap: anywhere;
  }
  td::before { content: attr(data-name); color: var(--soft); text-align: left; flex: 0 0 40%; overflow-wrap: normal; }
}
@media print { details { display: block; } .scroll { overflow: visible; } }
"""
