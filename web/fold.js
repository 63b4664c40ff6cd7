// Folds rare inputs in the classic drawing as well, where the host's pages know how to but do not do it:
// a mark in the title bar (or "Show Advanced" in the node's menu) unfolds them. Values and their order stay as they are.

import { app } from "../../scripts/app.js";

const PACK = "CoLoGen";
const MARK = "cologen_unfold";
const ALWAYS = "Comfy.Node.AlwaysShowAdvancedWidgets";

const rare = (node) => (node.widgets ?? []).filter((widget) => widget.options?.advanced);

const isLinked = (node, widget) => (node.inputs ?? []).some((input) => input.widget?.name === widget.name && input.link != null);

const fits = (node) => node.computeSize()[1];

const showsAll = (node) => node.showAdvanced || Boolean(app.extensionManager?.setting?.get(ALWAYS));

// The new drawing's own rule: what a link reaches is shown in a folded node, too. It is asked and not written to the node,
// so opening a graph does not change it.
const isShown = (node, widget) => !widget.hidden && (!widget.advanced || showsAll(node) || isLinked(node, widget));

function addMark(node) {
    node.addTitleButton?.({ name: MARK, text: "\u22ef", fontSize: 22, xOffset: -8, yOffset: 0, fgColor: "#ccc" });
    const clicked = node.onTitleButtonClick;
    node.onTitleButtonClick = function (button, canvas) {
        if (button.name !== MARK) return clicked?.call(this, button, canvas);
        const height = this.showAdvanced ? this.heightFolded : this.size[1];
        this.heightFolded = this.size[1];
        this.toggleAdvanced();
        this.setSize([this.size[0], Math.max(height ?? 0, fits(this))]);
    };
}

app.registerExtension({
    name: "CoLoGen.Fold",
    beforeRegisterNodeDef(nodeType, nodeData) {
        if (!nodeData.name.startsWith(PACK)) return;
        // folded ones take no room either
        nodeType.prototype.getLayoutWidgets = function () {
            return (this.widgets ?? []).filter((widget) => isShown(this, widget));
        };
        nodeType.prototype.isWidgetVisible = function (widget) {
            return !this.collapsed && isShown(this, widget);
        };
        const created = nodeType.prototype.onNodeCreated;
        // not nodeCreated: pages call that one late, when a saved node has its size already
        nodeType.prototype.onNodeCreated = function (...given) {
            created?.apply(this, given);
            if (!rare(this).length) return;
            const unfolded = fits(this);
            for (const widget of rare(this)) widget.advanced = true;
            addMark(this);
            this.setSize([this.size[0], this.size[1] - unfolded + fits(this)]);
        };
    },
    // graphs that were saved without a fold may be too small for what a link reaches
    loadedGraphNode(node) {
        if (node.comfyClass?.startsWith(PACK) && rare(node).some((widget) => isLinked(node, widget))) node.expandToFitContent?.();
    },
});
