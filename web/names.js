// Offers the names of experts and routers in the menu of nodes that ask for one: those of the banks that the graph loads.
// What is chosen is typed into the node's text, where any other name can be typed as before.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const PACK = "CoLoGen";
const BANK = "bank_name";
const FOLDER = "cologen";
const BUILT_IN = ["inpaint", "ground", "control", "subject", "edit"];
const LISTS = {
    expert: ({ experts }) => experts,
    router: ({ routers }) => [...routers, "final"],
    start: ({ experts }) => experts,
    parent: ({ experts }) => experts,
};
const NAME = /^[A-Za-z0-9_-]{1,64}$/; // menus draw what they are given as HTML, and a file can say anything
const NOTHING = { experts: [], routers: [] };
const known = new Map();

// A bank's file says what it holds in its metadata, which the host reads; the built-in one is no file of its folders.
async function readNames(bank) {
    if (bank.endsWith("(built in)")) return { experts: BUILT_IN, routers: BUILT_IN };
    const answer = await api.fetchApi(`/view_metadata/${FOLDER}?filename=${encodeURIComponent(bank)}`);
    if (!answer.ok) return NOTHING;
    const info = JSON.parse((await answer.json())[FOLDER] ?? "{}");
    const list = (table) => Object.keys(table ?? {}).filter((name) => NAME.test(name));
    return { experts: list(info.experts), routers: list(info.routers) };
}

const listBanks = (graph) =>
    graph.nodes.flatMap((node) => [
        ...(node.widgets ?? []).filter((widget) => widget.name === BANK).map((widget) => String(widget.value)),
        ...(node.subgraph ? listBanks(node.subgraph) : []),
    ]);

// Menus cannot wait, so names are read before: those that are new, or all of them again.
async function update(again = false) {
    const banks = new Set(listBanks(app.rootGraph ?? app.graph).filter((bank) => again || !known.has(bank)));
    await Promise.all([...banks].map(async (bank) => known.set(bank, await readNames(bank).catch(() => NOTHING))));
}

// A source's start is a number and no name.
const asksName = (widget) => widget.name in LISTS && typeof widget.value === "string";

function listNames(widget) {
    const banks = new Set(listBanks(app.rootGraph ?? app.graph));
    return [...new Set([...banks].flatMap((bank) => (known.has(bank) ? LISTS[widget.name](known.get(bank)) : [])))];
}

function choose(node, widget, name) {
    widget.value = name;
    widget.callback?.(name, app.canvas, node);
    node.setDirtyCanvas(true, true);
}

function offer(node, widget) {
    const options = listNames(widget).map((name) => ({ content: name, callback: () => choose(node, widget, name) }));
    return { content: `${widget.label ?? widget.name}: ${widget.value || "\u2013"}`, has_submenu: true, submenu: { options } };
}

app.registerExtension({
    name: "CoLoGen.Names",
    beforeRegisterNodeDef(nodeType, nodeData) {
        if (!nodeData.name.startsWith(PACK)) return;
        const inherited = nodeType.prototype.getExtraMenuOptions;
        nodeType.prototype.getExtraMenuOptions = function (canvas, options) {
            const result = inherited?.apply(this, arguments);
            const asking = (this.widgets ?? []).filter((widget) => asksName(widget) && listNames(widget).length);
            options.unshift(...asking.map((widget) => offer(this, widget)));
            update(true);
            return result;
        };
        const added = nodeType.prototype.onAdded;
        nodeType.prototype.onAdded = function (...given) {
            added?.apply(this, given);
            const bank = this.widgets?.find((widget) => widget.name === BANK);
            if (!bank || bank.isWatched) return;
            bank.isWatched = true;
            const changed = bank.callback;
            bank.callback = function (...values) {
                update();
                return changed?.apply(this, values);
            };
            update();
        };
    },
    afterConfigureGraph: () => update(),
});
