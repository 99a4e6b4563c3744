"""How pages look: on a screen of any width, and printed."""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""What a browser may do with a page: nothing is fetched and nothing runs."""

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 62rem; background: #fff; color: #1b1b1b;
       font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; border-bottom: 1px solid #c8c8c8; padding-bottom: .2rem; }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .4rem; }
a { color: #00507d; }
a:focus-visible, [tabindex]:focus-visible { outline: 3px solid #0072b2; outline-offset: 2px; }
.skip { position: absolute; left: -200vw; }
.skip:focus { position: static; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0; margin: .5rem 0 0; }
nav a { display: inline-block; padding: .35rem 0; }
.answer { border-left: .4rem solid #007a57; background: #eef7f3; padding: .6rem 1rem; margin: 1rem 0; }
.answer.alarm { border-left-color: #b34700; background: #fdf1e7; }
.answer p { margin: .3rem 0; }
.answer p:first-child { font-weight: 600; }
.warnings { border-left: .4rem solid #b88000; background: #fff8e5; padding: .6rem 1rem .6rem 2rem; margin: 1rem 0; }
.quiet { color: #4a4a4a; }
.wide { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; min-width: 50%; }
caption { text-align: left; font-weight: 600; padding: .4rem 0; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #dedede; }
thead th { border-bottom: 2px solid #8a8a8a; white-space: nowrap; }
tbody th { font-weight: 600; min-width: 7rem; max-width: 20rem; overflow-wrap: break-word; }
td.number, th.number { text-align: right; white-space: nowrap; }
.facts th { width: 12rem; }
.facts td { overflow-wrap: anywhere; }
.facts + .facts, .wide + .wide { margin-top: 1rem; }
figure { margin: 1rem 0; }
svg.picture { display: block; width: 100%; min-width: 32rem; max-width: 48rem; height: auto; }
figcaption { color: #4a4a4a; font-size: .9rem; }
pre { overflow-x: auto; max-width: 100%; background: #f4f4f4; border: 1px solid #d8d8d8; padding: .6rem .8rem; font-size: .85rem;
      line-height: 1.4; overflow-wrap: normal; }
@media (max-width: 40rem) {
  .facts, .facts caption, .facts tbody, .facts tr, .facts th, .facts td { display: block; width: auto; max-width: none; }
  .facts th { min-width: 0; border-bottom: none; padding-bottom: 0; }
}
@media print {
  @page { margin: 15mm; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav, .skip { display: none; }
  .wide, pre { overflow: visible; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  svg.picture { min-width: 0; max-width: 150mm; }
  figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  a { color: inherit; text-decoration: none; }
}
"""
