/* The exact search of exact.py in C, decision by decision: the same nodes, the same packing. exact.py explains it. */

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PLACED ((int64_t)1 << 60)
#define FREE (-1)
#define STOP_INTERVAL 4096

enum { FOUND, IMPOSSIBLE, UNDECIDED, NO_MEMORY };
enum { FEWEST_OPTIONS, LOWEST, TIGHTEST, FORCED_THEN_LOWEST };

/* A packing, as packing.py describes it. Lists of lists are flat: list k lies from starts[k] up to starts[k + 1]. */
typedef struct {
    int32_t count;
    int32_t sections;
    const int64_t *sizes;
    const int64_t *pins;
    const int32_t *first;
    const int32_t *last;
    const int32_t *order;
    const int64_t *totals;
    const int32_t *member_starts;
    const int32_t *members;
    const int32_t *neighbour_starts;
    const int32_t *neighbours;
} tp_packing;

typedef struct component {
    struct component *next;
    int32_t low;
    int32_t high;
    int32_t count;
    int32_t buffers[];
} component;

/* state: floor, top, total of every section, least of every buffer */
typedef struct choice {
    struct choice *below;
    component *where;
    component *parts;
    int64_t rise;
    int32_t section;
    int32_t option_count;
    int32_t *options;
    int64_t state[];
} choice;

typedef struct {
    const tp_packing *p;
    int64_t capacity;
    const int32_t *rank;
    int rule;
    size_t state_size;
    int64_t *state;
    int64_t *floor;
    int64_t *top;
    int64_t *total;
    int64_t *least;
    int64_t *offsets;
    int32_t *twin_starts;
    int32_t *twins;
    int32_t *change;
    bool *rejected;
    bool no_memory;
} search;

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void free_components(component *first)
{
    while (first != NULL) {
        component *next = first->next;
        free(first);
        first = next;
    }
}

static choice *pop(choice *top)
{
    choice *below = top->below;
    free_components(top->where);
    free_components(top->parts);
    free(top->options);
    free(top);
    return below;
}

static component *new_component(search *s, int32_t room)
{
    component *made = malloc(sizeof *made + (size_t)room * sizeof made->buffers[0]);
    if (made == NULL) {
        s->no_memory = true;
    } else {
        *made = (component){0};
    }
    return made;
}

/* The components that are left of `whole`, the last one first, as they are taken. */
static component *split(search *s, const component *whole)
{
    const tp_packing *p = s->p;
    component *parts = NULL;
    for (int32_t k = 0; k < whole->count;) {
        int32_t i = whole->buffers[k];
        if (s->least[i] == PLACED) {
            k++;
            continue;
        }
        component *part = new_component(s, whole->count - k);
        if (part == NULL) {
            free_components(parts);
            return NULL;
        }
        part->low = p->first[i];
        part->high = p->last[i];
        for (; k < whole->count; k++) {
            i = whole->buffers[k];
            if (s->least[i] == PLACED) {
                continue;
            }
            if (part->count > 0 && p->first[i] > part->high) {
                break;
            }
            part->buffers[part->count++] = i;
            if (p->last[i] > part->high) {
                part->high = p->last[i];
            }
        }
        if (part->count == 1) {
            s->offsets[part->buffers[0]] = s->least[part->buffers[0]];
            free(part);
        } else {
            part->next = parts;
            parts = part;
        }
    }
    return parts;
}

static bool settle(search *s, int32_t low, int32_t high)
{
    const tp_packing *p = s->p;
    for (int32_t section = low; section <= high; section++) {
        if (s->total[section] == 0) {
            continue;
        }
        int64_t lowest = PLACED;
        for (int32_t k = p->member_starts[section]; k < p->member_starts[section + 1]; k++) {
            lowest = min64(lowest, s->least[p->members[k]]);
        }
        if (lowest > s->floor[section]) {
            s->floor[section] = lowest;
        }
        if (s->floor[section] + s->total[section] > s->capacity) {
            return false;
        }
    }
    return true;
}

static bool lift(search *s, const int32_t *buffers, int32_t count, int64_t height, int32_t low, int32_t high)
{
    const tp_packing *p = s->p;
    for (int32_t k = 0; k < count; k++) {
        int32_t i = buffers[k];
        if (s->least[i] >= height) {
            continue;
        }
        if (p->pins[i] != FREE || height + p->sizes[i] > s->capacity) {
            return false;
        }
        s->least[i] = height;
        low = p->first[i] < low ? p->first[i] : low;
        high = p->last[i] > high ? p->last[i] : high;
    }
    return settle(s, low, high);
}

static int64_t room(const search *s, int32_t section)
{
    return s->capacity - s->floor[section] - s->total[section];
}

/* The key of a section with `count` buffers that could lie at its floor: a pair, compared in order. */
static void section_key(const search *s, int32_t section, int32_t count, int64_t key[2])
{
    int64_t options = count + (room(s, section) > 0);
    switch (s->rule) {
    case FEWEST_OPTIONS:
        key[0] = options;
        key[1] = s->floor[section];
        break;
    case LOWEST:
        key[0] = s->floor[section];
        key[1] = options;
        break;
    case TIGHTEST:
        key[0] = room(s, section);
        key[1] = options;
        break;
    default:
        key[0] = options == 1 ? 0 : 1 + s->floor[section];
        key[1] = options == 1 ? s->floor[section] : options;
        break;
    }
}

static bool allowed(const search *s, int32_t i, int64_t height)
{
    const tp_packing *p = s->p;
    if (p->pins[i] != FREE) {
        return true;
    }
    bool rests = false;
    for (int32_t section = p->first[i]; section <= p->last[i] && !rests; section++) {
        rests = s->top[section] == height;
    }
    if (!rests) {
        return false;
    }
    for (int32_t k = s->twin_starts[i]; k < s->twin_starts[i + 1]; k++) {
        int32_t j = s->twins[k];
        if (s->rank[j] < s->rank[i]) {
            if (s->least[j] != PLACED && p->sizes[j] == p->sizes[i]) {
                return false;
            }
        } else if (s->least[j] == PLACED && s->offsets[j] + p->sizes[j] == height) {
            return false;
        }
    }
    return true;
}

static int64_t next_floor(const search *s, int32_t section)
{
    const tp_packing *p = s->p;
    int64_t height = s->floor[section], lowest = PLACED;
    for (int32_t k = p->member_starts[section]; k < p->member_starts[section + 1]; k++) {
        int32_t i = p->members[k];
        if (s->least[i] > height) {
            lowest = min64(lowest, s->least[i]);
            continue;
        }
        for (int32_t n = p->neighbour_starts[i]; n < p->neighbour_starts[i + 1]; n++) {
            int32_t j = p->neighbours[n];
            if (section < p->first[j] || section > p->last[j]) {
                lowest = min64(lowest, s->least[j] + p->sizes[j]);
            }
        }
    }
    return lowest;
}

/* Counts, in `change`, for every section of `where` how many level buffers could lie at its floor. */
static void count_level(search *s, const component *where)
{
    const tp_packing *p = s->p;
    int32_t width = where->high - where->low + 1;
    memset(s->change, 0, ((size_t)width + 1) * sizeof *s->change);
    for (int32_t k = 0; k < where->count; k++) {
        int32_t i = where->buffers[k];
        bool level = true;
        for (int32_t section = p->first[i]; section <= p->last[i] && level; section++) {
            level = s->floor[section] == s->least[i];
        }
        if (level) {
            s->change[p->first[i] - where->low]++;
            s->change[p->last[i] + 1 - where->low]--;
        }
    }
    for (int32_t k = 1; k < width; k++) {
        s->change[k] += s->change[k - 1];
    }
}

static int32_t choose_section(search *s, const component *where)
{
    const tp_packing *p = s->p;
    count_level(s, where);
    memset(s->rejected, 0, (size_t)(where->high - where->low + 1) * sizeof *s->rejected);
    for (;;) {
        int32_t best = -1;
        int64_t best_key[2] = {0, 0};
        for (int32_t section = where->low; section <= where->high; section++) {
            int32_t count = s->change[section - where->low];
            int64_t key[2];
            if (count == 0 || s->rejected[section - where->low]) {
                continue;
            }
            section_key(s, section, count, key);
            if (best < 0 || key[0] < best_key[0] || (key[0] == best_key[0] && key[1] < best_key[1])) {
                best = section;
                best_key[0] = key[0];
                best_key[1] = key[1];
            }
        }
        int32_t here = 0;
        for (int32_t k = p->member_starts[best]; k < p->member_starts[best + 1]; k++) {
            here += s->least[p->members[k]] == s->floor[best];
        }
        if (here == s->change[best - where->low]) {
            return best;
        }
        s->rejected[best - where->low] = true;
    }
}

/* A choice in `where`, which it takes over; NULL where nothing can lie there, or without memory. */
static choice *branch(search *s, component *where)
{
    const tp_packing *p = s->p;
    int32_t section = choose_section(s, where);
    int64_t height = s->floor[section];
    int32_t most = p->member_starts[section + 1] - p->member_starts[section];
    choice *made = malloc(sizeof *made + s->state_size);
    int32_t *options = malloc((size_t)most * sizeof *options);
    if (made == NULL || options == NULL) {
        s->no_memory = true;
        free(made);
        free(options);
        free_components(where);
        return NULL;
    }
    *made = (choice){.where = where, .section = section, .options = options};
    bool pinned = false;
    for (int32_t k = p->member_starts[section]; k < p->member_starts[section + 1]; k++) {
        int32_t i = p->members[k];
        if (s->least[i] != height) {
            continue;
        }
        pinned = pinned || p->pins[i] != FREE;
        if (!allowed(s, i, height)) {
            continue;
        }
        int32_t at = made->option_count++;
        for (; at > 0 && s->rank[options[at - 1]] < s->rank[i]; at--) {
            options[at] = options[at - 1];
        }
        options[at] = i;
    }
    if (!pinned && room(s, section) > 0) {
        made->rise = next_floor(s, section);
        if (made->rise + s->total[section] > s->capacity) {
            made->rise = 0;
        }
    }
    if (made->option_count == 0 && made->rise == 0) {
        (void)pop(made);
        return NULL;
    }
    memcpy(made->state, s->state, s->state_size);
    return made;
}

static bool take(search *s, choice *c)
{
    const tp_packing *p = s->p;
    if (c->option_count == 0) {
        int64_t rise = c->rise;
        c->rise = 0;
        c->parts = c->where;
        c->where = NULL;
        s->floor[c->section] = rise;
        int32_t start = p->member_starts[c->section];
        return lift(s, p->members + start, p->member_starts[c->section + 1] - start, rise, c->section, c->section);
    }
    int32_t i = c->options[--c->option_count];
    int64_t end = s->least[i] + p->sizes[i];
    s->offsets[i] = s->least[i];
    s->least[i] = PLACED;
    for (int32_t section = p->first[i]; section <= p->last[i]; section++) {
        s->floor[section] = s->top[section] = end;
        s->total[section] -= p->sizes[i];
    }
    int32_t start = p->neighbour_starts[i];
    if (!lift(s, p->neighbours + start, p->neighbour_starts[i + 1] - start, end, p->first[i], p->last[i])) {
        return false;
    }
    c->parts = split(s, c->where);
    return true;
}

static void restore(search *s, choice *c)
{
    memcpy(s->state, c->state, s->state_size);
    free_components(c->parts);
    c->parts = NULL;
}

static int run(search *s, choice **top, int64_t limit, int (*stop)(void), int64_t *nodes)
{
    bool failed = false;
    while (*top != NULL) {
        choice *c = *top;
        if (!failed) {
            if (c->parts == NULL) {
                *top = pop(c);
                continue;
            }
            component *part = c->parts;
            c->parts = part->next;
            part->next = NULL;
            choice *following = branch(s, part);
            failed = following == NULL;
            if (failed) {
                restore(s, c);
            } else {
                following->below = c;
                *top = c = following;
            }
        }
        if (s->no_memory) {
            return NO_MEMORY;
        }
        if (c->option_count == 0 && c->rise == 0) {
            *top = pop(c);
            if (*top != NULL) {
                restore(s, *top);
            }
            failed = true;
            continue;
        }
        ++*nodes;
        if (*nodes > limit || (*nodes % STOP_INTERVAL == 0 && stop())) {
            return UNDECIDED;
        }
        failed = !take(s, c);
        if (failed) {
            restore(s, c);
        }
        if (s->no_memory) {
            return NO_MEMORY;
        }
    }
    return failed ? IMPOSSIBLE : FOUND;
}

static bool find_twins(search *s)
{
    const tp_packing *p = s->p;
    size_t found = 0;
    for (int pass = 0; pass < 2; pass++) {
        found = 0;
        for (int32_t i = 0; i < p->count; i++) {
            s->twin_starts[i] = (int32_t)found;
            for (int32_t j = 0; j < p->count; j++) {
                bool twin = i != j && p->first[i] == p->first[j] && p->last[i] == p->last[j];
                if (twin && p->pins[i] == FREE && p->pins[j] == FREE) {
                    if (pass == 1) {
                        s->twins[found] = j;
                    }
                    found++;
                }
            }
        }
        s->twin_starts[p->count] = (int32_t)found;
        if (pass == 0) {
            s->twins = malloc((found + 1) * sizeof *s->twins);
            if (s->twins == NULL) {
                return false;
            }
        }
    }
    return true;
}

static int begin(search *s, int64_t limit, int (*stop)(void), int64_t *nodes)
{
    const tp_packing *p = s->p;
    size_t sections = (size_t)p->sections, count = (size_t)p->count;
    memset(s->state, 0, s->state_size);
    memcpy(s->total, p->totals, sections * sizeof *s->total);
    for (size_t i = 0; i < count; i++) {
        s->offsets[i] = FREE;
        s->least[i] = p->pins[i] > 0 ? p->pins[i] : 0;
        if (s->least[i] + p->sizes[i] > s->capacity) {
            return IMPOSSIBLE;
        }
    }
    if (!settle(s, 0, p->sections - 1)) {
        return IMPOSSIBLE;
    }
    component *all = new_component(s, p->count);
    choice *root = malloc(sizeof *root + s->state_size);
    if (all == NULL || root == NULL) {
        free(all);
        free(root);
        return NO_MEMORY;
    }
    *root = (choice){.where = all};
    all->count = p->count;
    memcpy(all->buffers, p->order, count * sizeof *p->order);
    memcpy(root->state, s->state, s->state_size);
    root->parts = split(s, all);
    int verdict = run(s, &root, limit, stop, nodes);
    while (root != NULL) {
        root = pop(root);
    }
    return verdict;
}

/* Searches as exact.search does. `offsets` has room for every buffer; `nodes` is counted up. `stop` is asked now and
 * then. Returns the verdict. */
int tp_search(const tp_packing *packing, int64_t capacity, const int32_t *rank, int rule, int64_t limit,
              int (*stop)(void), int64_t *offsets, int64_t *nodes);

int tp_search(const tp_packing *packing, int64_t capacity, const int32_t *rank, int rule, int64_t limit,
              int (*stop)(void), int64_t *offsets, int64_t *nodes)
{
    size_t sections = (size_t)packing->sections, count = (size_t)packing->count;
    search s = {.p = packing, .capacity = capacity, .rank = rank, .rule = rule, .offsets = offsets};
    s.state_size = (3 * sections + count) * sizeof *s.state;
    s.state = malloc(s.state_size + sizeof *s.state);
    s.twin_starts = malloc((count + 1) * sizeof *s.twin_starts);
    s.change = malloc((sections + 1) * sizeof *s.change);
    s.rejected = malloc((sections + 1) * sizeof *s.rejected);
    int verdict = NO_MEMORY;
    if (s.state != NULL && s.twin_starts != NULL && s.change != NULL && s.rejected != NULL && find_twins(&s)) {
        s.floor = s.state;
        s.top = s.floor + sections;
        s.total = s.top + sections;
        s.least = s.total + sections;
        verdict = begin(&s, limit, stop, nodes);
    }
    free(s.state);
    free(s.twin_starts);
    free(s.twins);
    free(s.change);
    free(s.rejected);
    return verdict;
}
