/* Classifies one image with a compiled library and prints its best class.

       sqzc compile squeezenet1.1 -o libsqz.so
       sqzc compile squeezenet1.1 -o libsqz.h
       cc -O2 classify.c -I. -L. -lsqz -Wl,-rpath,'$ORIGIN' -o classify
       ./classify image.raw

   image.raw holds 3 planes (blue, green, red) of 227 x 227 floats from 0 to 255. */

#include <stdio.h>

#include "libsqz.h"

int main(int argc, char **argv) {
    static float image[squeezenet1_1_INPUT_0_ELEMENTS];
    static float scores[squeezenet1_1_OUTPUT_0_ELEMENTS];
    const void *inputs[squeezenet1_1_INPUT_COUNT] = {image};
    void *outputs[squeezenet1_1_OUTPUT_COUNT] = {scores};
    squeezenet1_1_model *model = NULL;
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    int best = 0, i;
    int32_t status;

    if (!file || fread(image, sizeof image, 1, file) != 1) {
        fprintf(stderr, "usage: classify IMAGE.raw (%d floats)\n", squeezenet1_1_INPUT_0_ELEMENTS);
        return 2;
    }
    fclose(file);
    status = squeezenet1_1_create(&model, 1);
    if (status == SQZC_OK) status = squeezenet1_1_run(model, 1, inputs, outputs);
    if (status != SQZC_OK) {
        fprintf(stderr, "%s\n", squeezenet1_1_strerror(status));
        return 1;
    }
    squeezenet1_1_destroy(model);
    for (i = 1; i < squeezenet1_1_OUTPUT_0_ELEMENTS; i++)
        if (scores[i] > scores[best]) best = i;
    printf("class %d, score %.4f\n", best, scores[best]);
    return 0;
}
