/* The folder of a report: figures first, then the pages that show them. */
#include "base/file.h"
#include "eval/report_out.h"

static int write_text(const char *dir, const char *name, const ns_buf *text, ns_err *e)
{
    ns_buf path = { 0 };
    ns_path_join(&path, dir, name);
    int rc = text->failed || path.failed ? ns_fail(e, NS_ENOMEM, "report: out of memory") : ns_file_write(path.data, text->data, text->len, e);
    ns_buf_release(&path);
    return rc;
}

static int write_all(const ns_report *r, const char *dir, ns_err *e)
{
    ns_buf page = { 0 }, card = { 0 };
    int rc = 0;
    for (int g = 0; g < r->n_groups && rc == 0; g++)
        rc = ns_report_plot_group(r, g, dir, e);
    if (rc == 0)
        rc = ns_report_plot_drift(r, dir, e);
    if (rc == 0)
        rc = ns_report_html(r, dir, &page, e);
    if (rc == 0)
        rc = write_text(dir, "index.html", &page, e);
    if (rc == 0) {
        ns_report_card(r, &card);
        rc = write_text(dir, "MODEL_CARD.md", &card, e);
    }
    ns_buf_release(&page);
    ns_buf_release(&card);
    return rc;
}

int ns_report_write(const ns_report *r, const char *path, ns_err *e)
{
    ns_outdir dir = { 0 };
    int rc = ns_outdir_open(&dir, path, e);
    if (rc == 0)
        rc = write_all(r, dir.tmp, e);
    if (rc == 0)
        rc = ns_outdir_commit(&dir, e);
    ns_outdir_release(&dir);
    return rc;
}
