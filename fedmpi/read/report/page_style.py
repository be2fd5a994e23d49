"""How a report page looks: one column on a phone, two or three of pictures on a wide window, light
or dark as the reader has it, and on paper."""

AS_CARDS = """
table.KIND,table.KIND tbody,table.KIND tr,table.KIND td,table.KIND th{display:block;text-align:left;border:0;padding:0}
table.KIND{width:100%;max-width:32rem}
table.KIND thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
table.KIND tr{border-bottom:1px solid var(--grid);padding:.55rem 0}
table.KIND tbody th{font-weight:600;overflow-wrap:anywhere}
table.KIND td{display:flex;justify-content:space-between;gap:1rem;padding:.12rem 0}
table.KIND td>span{text-align:right}
table.KIND td::before{content:attr(data-head);color:var(--quiet);flex:none;max-width:55%;overflow-wrap:anywhere}
"""

SCREEN = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--quiet:#59636e;--grid:#d1d6dc;--link:#0060a0;
--c0:#0072B2;--c1:#D55E00;--c2:#009E73;--c3:#CC79A7;--c4:#E69F00;--c5:#56B4E9}
@media screen and (prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e8eaed;--quiet:#a3adb8;--grid:#363d46;
--link:#7cc4ff;--c0:#4aa3e6;--c1:#ff8644;--c2:#2cc79b;--c3:#e8a3cb;--c4:#f2bb4b;--c5:#9ad6ff}
svg image{filter:brightness(1.55)}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--paper);color:var(--ink);font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue","Noto Sans","Liberation Sans",Arial,sans-serif;overflow-wrap:anywhere;
font-variant-numeric:tabular-nums}
header,main,footer{max-width:76rem;margin:0 auto;padding:0 clamp(1rem,4vw,2.5rem)}
header{padding-top:clamp(1.5rem,5vw,3.5rem)}
h1{font-size:clamp(1.6rem,1.1rem + 2.4vw,2.5rem);line-height:1.15;letter-spacing:-.02em;margin:0 0 .4rem;
font-weight:650;text-wrap:balance}
h2{font-size:1.35rem;letter-spacing:-.01em;line-height:1.25;margin:3.2rem 0 .8rem;padding-top:.9rem;
border-top:1px solid var(--grid);font-weight:650;scroll-margin-top:1rem}
h3{font-size:1rem;margin:0 0 .3rem;font-weight:600;line-height:1.35}
p{max-width:68ch;margin:.4rem 0 1rem}
.lead{max-width:none;color:var(--quiet);font-size:1.06rem;margin:0 0 1.2rem}
a{color:var(--link);text-underline-offset:.15em}
code{font:.875em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
nav ul{list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:.1rem 1.2rem}
nav a{display:inline-block;padding:.3rem 0;text-decoration:none}nav a:hover{text-decoration:underline}
.cards{display:grid;grid-template-columns:repeat(4,1fr);gap:1.6rem 2.2rem;margin:2rem 0 0}
.first{margin-top:2rem}
.cards div{border-top:2px solid var(--ink);padding-top:.55rem}
.cards dt{color:var(--quiet);font-size:.875rem}
.cards dd{margin:0}.cards .value{font-size:1.5rem;line-height:1.25;font-weight:650;letter-spacing:-.02em}
.cards .more{color:var(--quiet);font-size:.875rem;line-height:1.4}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,21rem),1fr));gap:2rem 2.2rem;
align-items:start;margin:1.2rem 0}
figure{margin:0;min-width:0}
figure svg{display:block;width:100%;height:auto;max-width:32rem}
figure svg *{stroke-linejoin:round}
figcaption{color:var(--quiet);font-size:.875rem;line-height:1.45;margin:.5rem 0 0;max-width:60ch}
table{border-collapse:collapse;margin:.6rem 0 1.4rem;font-size:.9375rem;line-height:1.4;max-width:100%}
h3+table{margin-top:.1rem}
th{overflow-wrap:normal}
th,td{padding:.42rem .9rem .42rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--grid)}
th:last-child,td:last-child{padding-right:0}
thead th{color:var(--quiet);font-weight:500;font-size:.875rem;border-bottom-color:var(--quiet);vertical-align:bottom}
tbody th{font-weight:500}
td.n,th.n{text-align:right}
td.q{color:var(--quiet);overflow-wrap:normal}
.best{font-weight:700}
.key{display:inline-flex;align-items:center;gap:.45em}.key svg{width:2.4em;height:.9em;flex:none;overflow:visible}
details{border-top:1px solid var(--grid);margin:0}details:last-of-type{border-bottom:1px solid var(--grid)}
details+h3{margin-top:1.4rem}
summary{cursor:pointer;padding:.7rem 0;font-weight:550}summary:hover{color:var(--link)}
summary .q{color:var(--quiet);font-weight:400}
details>:nth-child(2){margin-top:.2rem}
details.run{margin-top:1.6rem}details.run>summary{font-size:1.2rem;font-weight:650;letter-spacing:-.01em}
details.run>.inside{padding-bottom:1.6rem}
.beside{display:grid;grid-template-columns:minmax(0,21rem) minmax(0,1fr);gap:1rem 3rem;align-items:start;
margin:1.2rem 0}
.beside .pictures{margin:0;grid-template-columns:1fr}.beside>:last-child>:first-child{margin-top:0}
.paper{display:none}
.note{border-left:3px solid var(--c1);padding:.1rem 0 .1rem .9rem;max-width:68ch}
footer{color:var(--quiet);font-size:.875rem;margin-top:3.5rem;padding-top:1rem;padding-bottom:2.5rem}
:focus-visible{outline:2px solid var(--link);outline-offset:2px}
"""

PHONE = """
@media screen and (max-width:40rem){.cards{grid-template-columns:1fr 1fr;gap:1.2rem 1.2rem}
.cards .value{font-size:1.3rem}
th,td{padding-right:.55rem}table{font-size:.9rem}
figure svg{margin-inline:-.25rem;width:calc(100% + .5rem)}h2{margin-top:2.6rem}}
"""

PAPER = """
@media print{@page{margin:15mm 14mm}
body{font-size:9.5pt;line-height:1.4}svg image,svg *{print-color-adjust:exact;-webkit-print-color-adjust:exact}
header,main,footer{max-width:none;padding:0}header{padding-top:0}nav{display:none}
h1{font-size:20pt}h2{margin:1.1rem 0 .4rem;padding-top:.5rem;font-size:13pt;break-after:avoid}
h3,caption,summary{break-after:avoid}p{orphans:3;widows:3}
figure,.cards,tr,.keep,.beside{break-inside:avoid}thead{display:table-header-group}
.pictures{display:block;margin:.6rem 0;orphans:1;widows:1}
.pictures figure{display:inline-block;width:47.5%;margin:0 2% 1rem 0;vertical-align:top}
.beside .pictures figure{width:100%}#numbers{display:none}
.cards{grid-template-columns:repeat(4,1fr);gap:.7rem 1rem;margin-top:1rem}.cards .value{font-size:14pt}
.beside{grid-template-columns:1fr 1fr}.cards div{border-top-width:1pt}.folded{columns:2}thead th{font-size:8pt}
figcaption,.cards .more,.cards dt{font-size:7.5pt;line-height:1.35}
table{font-size:8.5pt}th,td{padding-top:.13rem;padding-bottom:.13rem}
.lead{font-size:10.5pt}a{color:inherit;text-decoration:none}footer{margin-top:1rem}
.paper{display:block}details.unprinted{display:none}details.run{margin-top:.6rem}
details.run>.inside{padding-bottom:.2rem}details.run>summary{font-size:11pt;padding:.3rem 0;break-after:avoid}
details.run .pictures figure{width:31.2%;margin:0 1.5% .6rem 0}details.run h3{font-size:8.5pt}
details.run figcaption{font-size:6.5pt;line-height:1.3}details.run td,details.run th{font-size:7.5pt;padding-top:.1rem;
padding-bottom:.1rem}details.run .aside{display:none}
details.run p{font-size:7.5pt;line-height:1.3;margin:.15rem 0}details.run table{margin:.2rem 0 .4rem}
details.run .beside{grid-template-columns:31.2% 1fr;gap:.3rem 1.6rem;margin:.4rem 0}
details.run .beside .pictures figure{width:100%;margin:0}
summary{list-style:none}summary::-webkit-details-marker{display:none}
details.printed::details-content{content-visibility:visible;block-size:auto;height:auto;overflow:visible}
details.numbers{display:none}}
"""


def _cards(kind, width):
    """Tables of a kind as cards, in windows up to this width."""
    return f"@media screen and (max-width:{width}){{{AS_CARDS.replace('KIND', kind)}}}\n"


BESIDE = "@media screen and (max-width:56rem){.beside{grid-template-columns:minmax(0,1fr)}}\n"
CSS = SCREEN + BESIDE + _cards("wide", "56rem") + _cards("wider", "74rem") + PHONE + PAPER
