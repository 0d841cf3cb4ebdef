package admin

import (
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/rootnfsd/rootnfsd/exports"
)

// routes are the paths that there are. The version is a part of those that programs rely on: what they
// answer only gains fields.
var routes = map[string]route{
	"/healthz":    {method: http.MethodGet, answer: (*door).health, cheap: true},
	"/readyz":     {method: http.MethodGet, answer: (*door).ready},
	"/metrics":    {method: http.MethodGet}, // which the library answers
	"/v1/nodes":   {method: http.MethodGet, answer: (*door).nodes},
	"/v1/status":  {method: http.MethodGet, answer: (*door).status},
	"/v1/history": {method: http.MethodGet, answer: (*door).history},
	"/v1/good":    {method: http.MethodPost, answer: (*door).good, cheap: true},
}

// route is a path, and what answers it: with a value, which is told as JSON, with none, or
// with an error.
type route struct {
	method string // GET, which HEAD goes with, or POST
	answer func(d *door, r *http.Request) (any, error)
	cheap  bool // it need not wait for others
}

// answer makes the answer to a request. It has its turn until that is made, not until a client
// has taken it.
func (d *door) answer(r *http.Request) (*answer, error) {
	to, err := d.find(r)
	if err != nil {
		a := failure(err)
		if a.status == http.StatusMethodNotAllowed {
			a.header.Set("Allow", to.allowed())
		}
		return a, nil
	}
	if !to.cheap {
		done, err := d.turn(r.Context())
		if err != nil {
			return nil, err
		}
		defer done()
	}
	if to.answer == nil {
		a := newAnswer()
		d.metrics.ServeHTTP(a, r)
		return a, nil
	}
	v, err := to.answer(d, r)
	if err != nil {
		return nil, err
	}
	return answerOf(http.StatusOK, v)
}

// find returns the route of a request, or why it has none that it may take.
func (d *door) find(r *http.Request) (route, error) {
	if from := d.client(r); !d.local && !d.allows(from) {
		return route{}, problemf(http.StatusForbidden, "%s is not allowed to ask; serve --allow says who is", from)
	}
	to, ok := routes[r.URL.Path]
	switch {
	case !d.local && !knownHost(r.Host):
		return to, problemf(http.StatusForbidden, "this server does not go by the name %q: ask by its address", r.Host)
	case !ok:
		return to, problemf(http.StatusNotFound, "there is no %s; there are %s", r.URL.Path, strings.Join(slices.Sorted(maps.Keys(routes)), ", "))
	case r.Method != to.method && !(r.Method == http.MethodHead && to.method == http.MethodGet):
		return to, problemf(http.StatusMethodNotAllowed, "%s is for %s", r.URL.Path, to.allowed())
	case r.Method == http.MethodPost && len(r.Header.Values("Origin")) > 0:
		return to, problemf(http.StatusForbidden, "%s is for nodes, not for the pages that a browser shows", r.URL.Path)
	case to.method == http.MethodGet && r.ContentLength != 0:
		return to, problemf(http.StatusRequestEntityTooLarge, "a request for %s has no body", r.URL.Path)
	case r.ContentLength < 0 || r.ContentLength > maxBody:
		return to, problemf(http.StatusRequestEntityTooLarge, "a body may have %d bytes, and say so; none is needed", maxBody)
	}
	return to, nil
}

// knownHost reports whether a request was meant for this server by its Host: that of a page whose
// name leads here by a trick of its owner (DNS rebinding) has that page's name. One without it, as HTTP/1.0
// has it, comes from no browser.
func knownHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.Trim(host, "[]"), ".")
	if _, err := netip.ParseAddr(host); err == nil || host == "" || strings.EqualFold(host, "localhost") {
		return true
	}
	own, err := os.Hostname()
	short, _, _ := strings.Cut(own, ".")
	return err == nil && (strings.EqualFold(host, own) || strings.EqualFold(host, short))
}

func (to route) allowed() string {
	if to.method == http.MethodGet {
		return "GET, HEAD"
	}
	return to.method
}

// health tells that the server is there.
func (d *door) health(*http.Request) (any, error) { return map[string]string{"status": "ok"}, nil }

// ready tells whether each image has a version to give to nodes.
func (d *door) ready(*http.Request) (any, error) {
	if err := d.cfg.Exports.Ready(); err != nil {
		return nil, &problem{http.StatusServiceUnavailable, err.Error()}
	}
	return map[string]string{"status": "ready"}, nil
}

func (d *door) nodes(r *http.Request) (any, error) {
	image, err := d.imageOf(r)
	if err != nil {
		return nil, err
	}
	return append([]exports.NodeStatus{}, d.cfg.Exports.Fleet(image)...), nil
}

func (d *door) history(r *http.Request) (any, error) {
	image, err := d.imageOf(r)
	if err != nil {
		return nil, err
	}
	rollout, err := d.cfg.Rollout(image)
	return append([]exports.Event{}, rollout.History...), err
}

// status tells of the image that is asked about, or of all.
func (d *door) status(r *http.Request) (any, error) {
	images := d.images()
	if d.image != "" || r.URL.Query().Has("image") {
		image, err := d.imageOf(r)
		if err != nil {
			return nil, err
		}
		images = []string{image}
	}
	all := []any{}
	for _, image := range images {
		status, err := d.cfg.Status(r.Context(), image)
		if err != nil {
			return nil, err
		}
		all = append(all, status)
	}
	return all, nil
}

// good is how a node says that it is up and well.
func (d *door) good(r *http.Request) (any, error) {
	node := d.client(r)
	switch {
	case d.local:
		return nil, problemf(http.StatusForbidden, "a node says itself that it is well, over TCP (serve --admin)")
	case !d.cfg.Exports.MarkGood(node):
		return nil, problemf(http.StatusNotFound, "%s has mounted nothing of this server", node)
	}
	return map[string]string{"node": node.String(), "status": "good"}, nil
}

// imageOf returns the image that a request is about.
func (d *door) imageOf(r *http.Request) (string, error) {
	images := d.images()
	image := r.URL.Query().Get("image")
	switch {
	case image == "" && d.image != "":
		return d.image, nil
	case image == "" && len(images) == 1:
		return images[0], nil
	case image == "":
		return "", problemf(http.StatusBadRequest, "say which image: %s?image=%s", r.URL.Path, strings.Join(images, " or "))
	case !slices.Contains(images, image):
		return "", problemf(http.StatusNotFound, "there is no image %q; there are %s", image, strings.Join(images, ", "))
	}
	return image, nil
}

func (d *door) images() []string { return imagesOf(d.cfg.Exports) }

func imagesOf(x *exports.Exports) []string {
	var names []string
	for _, s := range x.Serving() {
		names = append(names, s.Image)
	}
	return names
}
