/*
 * @MODEL@: a network compiled by sqzc, ABI version @ABI_VERSION@.
 *
@SUMMARY@
 *
 * Tensors are dense and row-major. They need the alignment of their element type alone, are never kept after a call
 * returns, and inputs are not written to. A run with batch B reads B times the elements of each input and writes B
 * times the elements of each output, one unit after the other. An output must not overlap an input or another output.
 *
 * No function prints, changes global state or ends the process. Wrong arguments and a CPU that lacks a feature give a
 * status code.
 *
 * A shared library has the same functions under the prefix sqz_ as well, for loaders that do not know the model.
 */
#ifndef SQZC_MODEL_@PREFIX@_H
#define SQZC_MODEL_@PREFIX@_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef SQZC_STATUS_DEFINED
#define SQZC_STATUS_DEFINED
/* What create, run and run_in return. */
enum sqzc_status {
@STATUSES@
};
#endif

/* The ABI this header describes; compare it with @PREFIX@_abi_version(). */
#define @PREFIX@_ABI_VERSION @ABI_VERSION@

/* Bytes to which the workspace of @PREFIX@_run_in must be aligned. */
#define @PREFIX@_WORKSPACE_ALIGNMENT @ALIGNMENT@

/* How many tensors there are, and the elements of each for a batch of 1. */
@SIZES@

/* A loaded model: its working memory and its threads. One handle serves one call at a time; different handles are
   independent. */
typedef struct @PREFIX@_model @PREFIX@_model;

/* The version of the ABI that the library was built with. */
int32_t @PREFIX@_abi_version(void);

/* All there is to know about the model, as JSON in ASCII. The text lives as long as the library. */
const char *@PREFIX@_metadata(void);

/* Makes a model that computes on `threads` threads, the caller's included; 0 means one for each core. On success *out
   is to be given to @PREFIX@_destroy, otherwise it is set to NULL. */
int32_t @PREFIX@_create(@PREFIX@_model **out, int32_t threads);

/* Runs the network on `batch` units (0 does nothing). `inputs` and `outputs` are arrays of pointers, in the order of the
   list at the top. */
int32_t @PREFIX@_run(@PREFIX@_model *model, int64_t batch, const void *const *inputs, void *const *outputs);

/* Ends the threads and frees the memory of a model; NULL does nothing. */
void @PREFIX@_destroy(@PREFIX@_model *model);

/* The size of the workspace that @PREFIX@_run_in needs, for any batch. */
size_t @PREFIX@_workspace_bytes(void);

/* As @PREFIX@_run, on the calling thread, with memory of the caller's: nothing is allocated and no thread is used.
   Calls with different workspaces may run at once. What the workspace holds before and after is of no meaning. */
int32_t @PREFIX@_run_in(void *workspace, int64_t batch, const void *const *inputs, void *const *outputs);

/* A status code in words. The text lives as long as the library; an unknown code has a text too. */
const char *@PREFIX@_strerror(int32_t code);

#ifdef __cplusplus
}
#endif

#endif
