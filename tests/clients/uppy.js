// Uppy on a page, as an app bundles it: XHR upload with minimal options.
import Uppy from "@uppy/core";
import XHRUpload from "@uppy/xhr-upload";

globalThis.newUppy = (endpoint, authorization) =>
  new Uppy().use(XHRUpload, { endpoint, headers: { authorization }, limit: 10 });
