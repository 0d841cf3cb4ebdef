package nodefiles

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"
	"time"
)

// templateSuffix is what the names of templates end in, and those of what is made of them do not.
const templateSuffix = ".tmpl"

const (
	// mostTemplate is how long a template may be, in bytes. It bounds, with what finite says, how long one
	// can take.
	mostTemplate = 64 << 10
	// mostTemplateTime is how long all templates of a node may take, not counting the reading of them:
	// a thousand times what is usual.
	mostTemplateTime = 2 * time.Second
)

var (
	errLongTemplate = fmt.Errorf("a template may have %d bytes: put what does not differ from node to node into a file of its own", mostTemplate)
	errTemplateTime = fmt.Errorf("the templates of the node take more than %v with this one, which is left out", mostTemplateTime)
)

// expand makes at most so many bytes of a template. The error says the line.
//
// A node waits for it to boot, and nothing can stop a template from outside that runs without an end. So
// what may not end is refused before it runs, and the time of all together is looked at where one
// writes, and before the next one.
func (s *set) expand(name, text string, n Node, most int) (string, error) {
	if len(text) > mostTemplate {
		return "", errLongTemplate
	}
	start := time.Now()
	defer func() { s.time -= time.Since(start) }()
	out := bounded{room: most, until: start.Add(s.time)}
	t, err := template.New(name).Option("missingkey=error").Parse(text)
	if err == nil {
		err = finite(t.Tree)
	}
	if err == nil && s.time <= 0 {
		err = errTemplateTime
	}
	if err == nil {
		err = t.Execute(&out, n)
	}
	switch {
	case errors.Is(err, errTemplateTime):
		return "", errTemplateTime
	case err != nil:
		return "", fmt.Errorf("line %s", strings.TrimPrefix(err.Error(), "template: "+name+":"))
	}
	return out.b.String(), nil
}

// bounded is a buffer with an end, in room and in time.
type bounded struct {
	b     bytes.Buffer
	room  int
	until time.Time
}

func (w *bounded) Write(p []byte) (int, error) {
	if w.b.Len()+len(p) > w.room {
		return 0, errTooLarge
	}
	if time.Now().After(w.until) {
		return 0, errTemplateTime
	}
	return w.b.Write(p)
}

// functions are those that templates may use: none makes more of what it is given, as print does, with which a few lines
// that double a text fill the memory.
var functions = []string{"and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "index", "slice", "len"}

// finite reports what in a template could make it run, or grow in memory, without bounds: a loop over anything but
// the labels, of which there are few; a loop in a loop; a template that calls templates, and may be among
// them itself; a function that makes text.
func finite(t *parse.Tree) error {
	w := walk{tree: t}
	w.list(t.Root)
	return w.err
}

// walk looks at the nodes of a tree that can be executed. It keeps the first error.
type walk struct {
	tree   *parse.Tree
	inLoop bool
	err    error
}

// refuse notes what is wrong with a node, in the words of text/template.
func (w *walk) refuse(n parse.Node, format string, args ...any) {
	if w.err == nil {
		at, _ := w.tree.ErrorContext(n)
		w.err = fmt.Errorf("template: %s: %s", at, fmt.Sprintf(format, args...))
	}
}

func (w *walk) list(l *parse.ListNode) {
	if l == nil {
		return // there is no else
	}
	for _, n := range l.Nodes {
		w.node(n)
	}
}

func (w *walk) node(n parse.Node) {
	switch n := n.(type) {
	case *parse.TextNode, *parse.CommentNode, *parse.BreakNode, *parse.ContinueNode:
	case *parse.ActionNode:
		w.pipe(n.Pipe)
	case *parse.IfNode:
		w.branch(&n.BranchNode)
	case *parse.WithNode:
		w.branch(&n.BranchNode)
	case *parse.RangeNode:
		w.loop(n)
	case *parse.TemplateNode:
		w.refuse(n, "templates cannot call templates here")
	default:
		w.refuse(n, "%.60s cannot be used here", n)
	}
}

func (w *walk) branch(n *parse.BranchNode) {
	w.pipe(n.Pipe)
	w.list(n.List)
	w.list(n.ElseList)
}

func (w *walk) loop(n *parse.RangeNode) {
	switch {
	case !isLabels(n.Pipe):
		w.refuse(n, "only .Labels can be ranged over, not %.60s", n.Pipe)
	case w.inLoop:
		w.refuse(n, "a range within a range")
	default:
		w.inLoop = true
		w.list(n.List)
		w.inLoop = false
		w.list(n.ElseList)
	}
}

// isLabels reports whether what is ranged over can be nothing but the labels: only Node has a
// field of that name.
func isLabels(p *parse.PipeNode) bool {
	if len(p.Cmds) != 1 || len(p.Cmds[0].Args) != 1 {
		return false
	}
	switch n := p.Cmds[0].Args[0].(type) {
	case *parse.FieldNode:
		return slices.Equal(n.Ident, []string{"Labels"})
	case *parse.VariableNode:
		return slices.Equal(n.Ident, []string{"$", "Labels"})
	}
	return false
}

func (w *walk) pipe(p *parse.PipeNode) {
	for _, c := range p.Cmds {
		for _, arg := range c.Args {
			w.argument(arg)
		}
	}
}

func (w *walk) argument(n parse.Node) {
	switch n := n.(type) {
	case *parse.DotNode, *parse.NilNode, *parse.FieldNode, *parse.VariableNode, *parse.BoolNode, *parse.NumberNode, *parse.StringNode:
	case *parse.ChainNode:
		w.argument(n.Node)
	case *parse.PipeNode:
		w.pipe(n)
	case *parse.IdentifierNode:
		if !slices.Contains(functions, n.Ident) {
			w.refuse(n, "the function %.60s cannot be used here", n.Ident)
		}
	default:
		w.refuse(n, "%.60s cannot be used here", n)
	}
}
