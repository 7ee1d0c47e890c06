// Uppy on a page, as an app would bundle it: its XHR upload with the fewest options.
import Uppy from "@uppy/core";
import XHRUpload from "@uppy/xhr-upload";

globalThis.newUppy = (endpoint, authorization) =>
  new Uppy().use(XHRUpload, { endpoint, headers: { authorization }, limit: 10 });
