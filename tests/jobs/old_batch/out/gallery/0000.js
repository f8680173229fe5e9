gallery.chunk({"number":0,"version":"6e4859b3bbe6","fields":["id","prompt","seed","status","method","height","width","num_frames","steps","video","error","seconds","dense_steps","sparse_steps","attempts","gang"]}, [
["done","a small blue square moving left on a plain background",0,"done","resca",64,64,9,16,"videos/done-a-small-blue-square-moving-left-on-a-s0.mp4",null,{"encode":0.354,"denoise":4.425,"decode":0.411,"write":0.123},6,10,0,null],
["poison","a large red circle moving right on a striped background",1,"failed","resca",64,64,9,16,null,"IsADirectoryError: [Errno 21] Is a directory: '/videos/attempts/poison-d47e01e7/video.mp4' -\u003e '/videos/videos/poison-a-large-red-circle-moving-right-on-a-s1.mp4'",null,null,null,0,null],
["other","a small green triangle moving up on a plain background",11,"done","resca",64,64,5,16,"videos/other-a-small-green-triangle-moving-up-on-a-s11.mp4",null,{"encode":0.286,"denoise":4.747,"decode":0.702,"write":0.071},6,10,0,null],
["left","a large yellow circle moving down on a plain background",3,"waiting","resca",64,64,9,16,null,null,null,null,null,0,null]
]);
