/** The functions of cuBLASLt, found at run time. */
#pragma once
#include <cublasLt.h>

#include <string>

/** The functions that are used, of the library that was found. */
struct BlasLibrary {
  decltype(&cublasLtGetVersion) version;
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmulDescCreate) createDesc;
  decltype(&cublasLtMatmulDescDestroy) destroyDesc;
  decltype(&cublasLtMatmulDescSetAttribute) setDesc;
  decltype(&cublasLtMatrixLayoutCreate) createLayout;
  decltype(&cublasLtMatrixLayoutDestroy) destroyLayout;
  decltype(&cublasLtMatrixLayoutSetAttribute) setLayout;
  decltype(&cublasLtMatmulPreferenceCreate) createPreference;
  decltype(&cublasLtMatmulPreferenceDestroy) destroyPreference;
  decltype(&cublasLtMatmulPreferenceSetAttribute) setPreference;
};

/** What became of the search. */
struct BlasSearch {
  BlasLibrary lt{};
  bool isThere = false;
  std::string path, problem; // why there is none, and where it was looked for
};

/** Looks for the library once a process. */
const BlasSearch& blas_library();

/** "13.1" for 130100. */
std::string blas_version(size_t version);
