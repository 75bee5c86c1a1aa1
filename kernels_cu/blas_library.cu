/** Looks for cuBLASLt: where NANOCHAT_CUBLASLT says, else as the loader does, in the toolkit and in python environments. */
#ifdef __CUDACC__
#include "blas_library.cuh"

#include <dlfcn.h>
#include <glob.h>

#include <cstdlib>
#include <type_traits>
#include <vector>

namespace {

constexpr const char* FILE_NAME = "libcublasLt.so.13";
constexpr size_t OLDEST = 130000; // of the header that this is compiled with

/** Files that match a pattern of the shell. */
std::vector<std::string> matches(const std::string& pattern) {
  std::vector<std::string> paths;
  glob_t found{};
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0) paths.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  globfree(&found);
  return paths;
}

/** Where the library may be, best first; a name without a folder is left to the loader. */
std::vector<std::string> places() {
  const auto variable = [](const char* name) { const char* text = getenv(name); return std::string(text ? text : ""); };
  if (const std::string given = variable("NANOCHAT_CUBLASLT"); !given.empty()) return {given, given + "/" + FILE_NAME};
  std::vector<std::string> list{FILE_NAME};
  for (const std::string& home : {variable("CUDA_HOME"), variable("CUDA_PATH"), std::string("/usr/local/cuda")}) {
    if (!home.empty()) list.push_back(home + "/lib64/" + FILE_NAME);
  }
  std::vector<std::string> prefixes;
  if (const std::string environment = variable("VIRTUAL_ENV"); !environment.empty()) prefixes.push_back(environment);
  if (const std::string home = variable("HOME"); !home.empty()) prefixes.push_back(home + "/.local");
  const std::string path = variable("PATH") + ":";
  for (size_t from = 0, to; (to = path.find(':', from)) != std::string::npos; from = to + 1) { // .../bin/python3 has .../lib/python3.x
    const std::string folder = path.substr(from, to - from);
    if (folder.size() > 4 && folder.compare(folder.size() - 4, 4, "/bin") == 0 && !matches(folder + "/python3").empty()) {
      prefixes.push_back(folder.substr(0, folder.size() - 4));
    }
  }
  for (const std::string& prefix : prefixes) {
    for (const char* packages : {"/lib/python3*/site-packages", "/lib/python3*/dist-packages", "/lib/python3/dist-packages"}) {
      for (const char* folder : {"/nvidia/cu13/lib/", "/nvidia/cublas/lib/"}) {
        for (const std::string& file : matches(prefix + packages + folder + FILE_NAME)) list.push_back(file);
      }
    }
  }
  return list;
}

/** Fills the table from an open library; false where a function is missing. */
bool bind(void* handle, BlasLibrary& lt) {
  bool whole = true;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(handle, name));
    whole = whole && function;
  };
  find(lt.version, "cublasLtGetVersion");
  find(lt.create, "cublasLtCreate");
  find(lt.destroy, "cublasLtDestroy");
  find(lt.matmul, "cublasLtMatmul");
  find(lt.heuristic, "cublasLtMatmulAlgoGetHeuristic");
  find(lt.createDesc, "cublasLtMatmulDescCreate");
  find(lt.destroyDesc, "cublasLtMatmulDescDestroy");
  find(lt.setDesc, "cublasLtMatmulDescSetAttribute");
  find(lt.createLayout, "cublasLtMatrixLayoutCreate");
  find(lt.destroyLayout, "cublasLtMatrixLayoutDestroy");
  find(lt.setLayout, "cublasLtMatrixLayoutSetAttribute");
  find(lt.createPreference, "cublasLtMatmulPreferenceCreate");
  find(lt.destroyPreference, "cublasLtMatmulPreferenceDestroy");
  find(lt.setPreference, "cublasLtMatmulPreferenceSetAttribute");
  return whole;
}

BlasSearch look_for() {
  BlasSearch found;
  std::string looked, older;
  for (const std::string& place : places()) {
    looked += (looked.empty() ? "" : ", ") + place;
    void* handle = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) continue;
    if (bind(handle, found.lt) && found.lt.version() >= OLDEST) {
      found.isThere = true;
      found.path = place;
      return found;
    }
    older += " " + place + " is " + (found.lt.version ? "version " + blas_version(found.lt.version()) : "none") + ", expected " + blas_version(OLDEST) +
      " or newer;";
    dlclose(handle);
  }
  found.problem = older + " " + FILE_NAME + " not found as " + looked;
  found.problem.erase(0, found.problem.find_first_not_of(' '));
  return found;
}

} // namespace

const BlasSearch& blas_library() {
  static const BlasSearch found = look_for();
  return found;
}

std::string blas_version(size_t version) { return std::to_string(version / 10000) + "." + std::to_string(version % 10000 / 100); }

#endif
