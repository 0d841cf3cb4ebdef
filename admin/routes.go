package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
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

func (d *door) answer(w http.ResponseWriter, r *http.Request) error {
	to, err := d.find(r)
	if err != nil {
		if p, ok := err.(*problem); ok && p.status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", to.allowed())
		}
		return err
	}
	if !to.cheap {
		done, err := d.turn(r.Context())
		if err != nil {
			return err
		}
		defer done()
	}
	if to.answer == nil {
		d.metrics.ServeHTTP(w, r)
		return nil
	}
	v, err := to.answer(d, r)
	if err != nil {
		return err
	}
	return write(w, http.StatusOK, v)
}

// find returns the route of a request, or why it has none that it may take.
func (d *door) find(r *http.Request) (route, error) {
	if from := d.client(r); !d.local && !d.allows(from) {
		return route{}, problemf(http.StatusForbidden, "%s is not allowed to ask; serve --allow says who is", from)
	}
	to, ok := routes[r.URL.Path]
	switch {
	case !ok:
		return to, problemf(http.StatusNotFound, "there is no %s; there are %s", r.URL.Path, strings.Join(slices.Sorted(maps.Keys(routes)), ", "))
	case r.Method != to.method && !(r.Method == http.MethodHead && to.method == http.MethodGet):
		return to, problemf(http.StatusMethodNotAllowed, "%s is for %s", r.URL.Path, to.allowed())
	case to.method == http.MethodGet && r.ContentLength != 0:
		return to, problemf(http.StatusRequestEntityTooLarge, "a request for %s has no body", r.URL.Path)
	case r.ContentLength < 0 || r.ContentLength > maxBody:
		return to, problemf(http.StatusRequestEntityTooLarge, "a body may have %d bytes, and say so; none is needed", maxBody)
	}
	return to, nil
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
	events, err := d.cfg.History(image)
	return append([]exports.Event{}, events...), err
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

// write answers with a value.
func write(w http.ResponseWriter, status int, v any) error {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", fmt.Sprint(body.Len()))
	w.WriteHeader(status)
	_, _ = io.Copy(w, &body) // to a client that may be gone
	return nil
}

// fail answers with an error.
func fail(w http.ResponseWriter, err error) {
	status := statusOf(err)
	if status == http.StatusRequestEntityTooLarge {
		w.Header().Set("Connection", "close") // rather than read it
	}
	_ = write(w, status, answerError{err.Error()}) // which is always JSON
}

// answerError is the answer to a request that failed.
type answerError struct {
	Error string `json:"error"`
}
